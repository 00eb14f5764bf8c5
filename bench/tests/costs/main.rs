fn main() { bench::serve_if_asked(); }
