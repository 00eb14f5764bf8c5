//! Shows a comparison: in a terminal, as a page, and against another.
