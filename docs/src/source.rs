//! A Rust source file, cut by the names of its items.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use syn::spanned::Spanned;

/// The workspace that this package belongs to.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// A file of the workspace as text; errors name it.
pub fn text(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

/// A path with each `..` carried out, by its words alone.
pub fn without_parents(path: &Path) -> String {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean.to_string_lossy().into_owned()
}

/// A source file and where its items stand.
pub struct Source {
    path: String,
    lines: Vec<String>,
    items: Vec<Item>,
}

/// One item: a type, a constant, a function, an `impl` block, or what stands
/// in one. Lines count from 0; `end` is the line after the last.
#[derive(Debug)]
struct Item {
    /// `on_ready` of `EventLoop` is `EventLoop::on_ready`, and an `impl` block
    /// is `impl EventLoop`.
    name: String,
    begin: usize,
    end: usize,
    /// Where it begins with the head of the block that it is the first of.
    headed: usize,
}

/// Everything before the type `Server`: the comment on the model, the uses,
/// the constants.
pub const HEAD: &str = "head";

impl Source {
    /// Reads a file, by its path in the workspace.
    ///
    /// Fails when it cannot be read or is no Rust.
    pub fn read(path: &str) -> Result<Source> {
        Source::parse(path, &text(path)?)
    }

    fn parse(path: &str, text: &str) -> Result<Source> {
        let file = syn::parse_file(text)
            .map_err(|error| anyhow!("{path}: {error}"))?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut items = Vec::new();
        for item in &file.items {
            collect(item, &lines, &mut items);
        }
        Ok(Source { path: path.to_owned(), lines, items })
    }

    /// The item of this name: `Type::name`, or `name` alone if no other item
    /// ends so.
    fn find(&self, name: &str) -> Result<&Item> {
        let whole = self.items.iter().find(|item| item.name == name);
        if let Some(item) = whole {
            return Ok(item);
        }
        let ending = format!("::{name}");
        let mut found =
            self.items.iter().filter(|it| it.name.ends_with(&ending));
        let item = found
            .next()
            .with_context(|| format!("{} has no item '{name}'", self.path))?;
        if let Some(other) = found.next() {
            bail!(
                "{}: '{name}' may be {} or {}",
                self.path,
                item.name,
                other.name
            );
        }
        Ok(item)
    }

    /// An item's lines, or those from one to another (`A..B`), as far to the
    /// left as they can stand.
    pub fn excerpt(&self, name: &str) -> Result<String> {
        let (begin, end) = match name.split_once("..") {
            Some((from, to)) => (self.find(from)?.begin, self.find(to)?.end),
            None => {
                let item = self.find(name)?;
                (item.begin, item.end)
            }
        };
        ensure!(begin < end, "{}: '{name}' ends before it begins", self.path);
        Ok(dedented(&self.lines[begin..end]))
    }

    /// The file in pieces, each from the item named to the next one named.
    /// Together they are the whole file, but for empty lines between them.
    pub fn pieces(&self, names: &[&str]) -> Result<Vec<String>> {
        let mut begins = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let begin = match *name {
                "//!" => 0,
                name => self.find(name)?.headed,
            };
            ensure!(
                (at == 0) == (begin == 0),
                "{}: the first piece, and no other, is '//!'",
                self.path
            );
            ensure!(
                begins.last().is_none_or(|last| *last < begin),
                "{}: '{name}' stands before '{}'",
                self.path,
                names[at.saturating_sub(1)]
            );
            begins.push(begin);
        }
        begins.push(self.lines.len());
        let pieces = begins.windows(2).map(|it| {
            let piece = self.lines[it[0]..it[1]].join("\n");
            piece.trim_matches('\n').to_owned()
        });
        Ok(pieces.collect())
    }

    /// What is compared with a neighbour: each item by name with its text,
    /// a block's head with its first item, everything before `Server` as one.
    pub fn parts(&self) -> Vec<(&str, String)> {
        let server = self.items.iter().find(|it| it.name == "Server");
        let server = server.map_or(0, |it| it.begin);
        let items = self
            .items
            .iter()
            .filter(|it| it.begin >= server && !it.name.starts_with("impl "));
        let head = self.lines[..server].join("\n");
        let mut parts = vec![(HEAD, head.trim_end().to_owned())];
        parts.extend(items.map(|it| {
            let lines = &self.lines[it.headed..it.end];
            (&*it.name, dedented(lines))
        }));
        parts
    }

    /// The full name of a part.
    pub fn name_of_part(&self, name: &str) -> Option<&str> {
        match name {
            HEAD => Some(HEAD),
            name => self.find(name).ok().map(|item| &*item.name),
        }
    }
}

fn collect(item: &syn::Item, lines: &[String], items: &mut Vec<Item>) {
    let name = match item {
        syn::Item::Use(_) => "use".to_owned(),
        syn::Item::Mod(it) if it.content.is_none() => "use".to_owned(),
        syn::Item::Mod(it) => it.ident.to_string(),
        syn::Item::Const(it) => it.ident.to_string(),
        syn::Item::Static(it) => it.ident.to_string(),
        syn::Item::Type(it) => it.ident.to_string(),
        syn::Item::Struct(it) => it.ident.to_string(),
        syn::Item::Enum(it) => it.ident.to_string(),
        syn::Item::Union(it) => it.ident.to_string(),
        syn::Item::Trait(it) => it.ident.to_string(),
        syn::Item::Fn(it) => it.sig.ident.to_string(),
        syn::Item::Impl(it) => {
            let of = type_name(&it.self_ty);
            push(format!("impl {of}"), it, lines, items);
            let head = items.last().map(|it| it.begin);
            for (at, inner) in it.items.iter().enumerate() {
                let ident = match inner {
                    syn::ImplItem::Const(it) => &it.ident,
                    syn::ImplItem::Type(it) => &it.ident,
                    syn::ImplItem::Fn(it) => &it.sig.ident,
                    _ => continue,
                };
                push(format!("{of}::{ident}"), inner, lines, items);
                if let (0, Some(head), Some(first)) =
                    (at, head, items.last_mut())
                {
                    first.headed = head;
                }
            }
            return;
        }
        _ => return,
    };
    // Only the first of the uses has the name.
    if name != "use" || items.iter().all(|it| it.name != "use") {
        push(name, item, lines, items);
    }
}

fn push(
    name: String,
    what: &impl Spanned,
    lines: &[String],
    items: &mut Vec<Item>,
) {
    let span = what.span();
    let mut begin = span.start().line - 1;
    // Ordinary comments belong to what stands below them.
    while begin > 0 && lines[begin - 1].trim_start().starts_with("// ") {
        begin -= 1;
    }
    items.push(Item { name, begin, end: span.end().line, headed: begin });
}

fn type_name(of: &syn::Type) -> String {
    match of {
        syn::Type::Path(path) => path
            .path
            .segments
            .last()
            .map_or_else(String::new, |it| it.ident.to_string()),
        syn::Type::Reference(it) => type_name(&it.elem),
        _ => String::new(),
    }
}

fn dedented(lines: &[String]) -> String {
    let full = lines.iter().filter(|line| !line.trim().is_empty());
    let indent = full.map(|it| it.len() - it.trim_start().len()).min();
    let indent = indent.unwrap_or(0);
    let lines = lines.iter().map(|line| line.get(indent..).unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "//! Model.\n\nuse a;\nuse b;\n\nconst A: u8 = 1;\n\n\
        /// Doc.\npub enum Server {}\n\nimpl Server {\n    /// Runs.\n    \
        fn run() {\n        a();\n    }\n\n    // Why.\n    fn stop() {}\n}\n\n\
        impl Other {\n    fn stop() {}\n}\n";

    fn source() -> Source {
        Source::parse("x.rs", TEXT).expect("it is Rust")
    }

    #[test]
    fn cuts_items_with_their_comments() {
        let source = source();
        let cut = |name| source.excerpt(name).expect("it is there");
        assert_eq!(cut("run"), "/// Runs.\nfn run() {\n    a();\n}");
        assert_eq!(cut("Server::stop"), "// Why.\nfn stop() {}");
        assert_eq!(
            cut("A..Server"),
            "const A: u8 = 1;\n\n/// Doc.\npub enum Server {}"
        );
    }

    #[test]
    fn says_which_name_is_wrong() {
        let source = source();
        let why = |name| format!("{:#}", source.excerpt(name).unwrap_err());
        assert_eq!(why("gone"), "x.rs has no item 'gone'");
        assert_eq!(
            why("stop"),
            "x.rs: 'stop' may be Server::stop or Other::stop"
        );
    }

    #[test]
    fn pieces_are_the_whole_file() {
        let names =
            ["//!", "use", "Server", "run", "Server::stop", "impl Other"];
        let pieces = source().pieces(&names).expect("in order");
        let whole: String = pieces.join("\n").replace('\n', "");
        assert_eq!(whole, TEXT.replace('\n', ""));
        assert!(pieces[3].starts_with("impl Server {"), "{}", pieces[3]);
        assert!(source().pieces(&["//!", "Server", "use"]).is_err());
        assert!(source().pieces(&["use"]).is_err());
    }

    #[test]
    fn parts_have_names() {
        let source = source();
        let names: Vec<_> = source.parts().into_iter().map(|it| it.0).collect();
        let wanted =
            [HEAD, "Server", "Server::run", "Server::stop", "Other::stop"];
        assert_eq!(names, wanted);
    }
}
