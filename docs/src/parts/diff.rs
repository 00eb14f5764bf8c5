//! What differs between neighbours, item by item, white space apart.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use similar::{Algorithm, ChangeTag, DiffOp, capture_diff_slices};

use crate::source::Source;

/// Unchanged lines beside a change; longer stretches are left out.
const CONTEXT: usize = 3;

/// Two servers whose diff is a lesson.
pub struct Neighbours {
    from: Source,
    to: Source,
}

impl Neighbours {
    /// By the servers' names.
    pub fn new(from: &str, to: &str) -> Result<Neighbours> {
        let read = |name: &str| Source::read(&format!("{name}/src/lib.rs"));
        Ok(Neighbours { from: read(from)?, to: read(to)? })
    }

    /// The parts in which they differ, by full name.
    pub fn differing(&self) -> BTreeSet<String> {
        let (from, to) = (self.from.parts(), self.to.parts());
        let text = |parts: &[(&str, String)], name: &str| {
            let part = parts.iter().find(|it| it.0 == name);
            part.map(|it| squeezed_lines(&it.1))
        };
        let names = from.iter().chain(&to).map(|it| it.0);
        names
            .filter(|name| text(&from, name) != text(&to, name))
            .map(str::to_owned)
            .collect()
    }

    /// The full names that a selector speaks of: one, or one on each side.
    pub fn named(&self, selector: &str) -> Result<BTreeSet<String>> {
        let (left, right) = sides(selector);
        let names = [(&self.from, left), (&self.to, right)];
        let names: BTreeSet<String> = names
            .iter()
            .filter_map(|(source, name)| source.name_of_part(name))
            .map(str::to_owned)
            .collect();
        ensure!(!names.is_empty(), "neither has an item '{selector}'");
        Ok(names)
    }

    fn texts(&self, selector: &str) -> Result<(String, String)> {
        let (left, right) = sides(selector);
        let text = |source: &Source, name: &str| {
            let full = source.name_of_part(name)?;
            let parts = source.parts();
            parts.into_iter().find(|it| it.0 == full).map(|it| it.1)
        };
        let texts = (text(&self.from, left), text(&self.to, right));
        ensure!(texts != (None, None), "neither has an item '{selector}'");
        Ok((texts.0.unwrap_or_default(), texts.1.unwrap_or_default()))
    }
}

fn sides(selector: &str) -> (&str, &str) {
    selector.split_once('=').unwrap_or((selector, selector))
}

/// `FROM TO ITEM`: the diff of one item as a block.
pub fn between(words: &str) -> Result<String> {
    let mut words = words.split_whitespace();
    let mut word = || words.next().context("say: diff FROM TO ITEM");
    let (from, to, item) = (word()?, word()?, word()?);
    let (old, new) = Neighbours::new(from, to)?.texts(item)?;
    let lines = lines_between(&old, &new);
    ensure!(
        lines.iter().any(|line| !line.starts_with(' ')),
        "'{item}' is the same in both"
    );
    Ok(format!("```diff\n{}\n```", lines.join("\n")))
}

/// The lines of a unified diff, without its heads.
fn lines_between(old: &str, new: &str) -> Vec<String> {
    let (old_lines, new_lines): (Vec<&str>, Vec<&str>) =
        (old.lines().collect(), new.lines().collect());
    let (olds, news) = (squeezed_lines(old), squeezed_lines(new));
    let ops = capture_diff_slices(Algorithm::Patience, &olds, &news);
    let mut lines = Vec::new();
    let last = ops.len().saturating_sub(1);
    for (at, op) in ops.iter().enumerate() {
        if let DiffOp::Equal { new_index, len, .. } = *op {
            let same = &new_lines[new_index..new_index + len];
            let before = if at == 0 { 0 } else { CONTEXT };
            let after = if at == last { 0 } else { CONTEXT };
            if same.len() <= before + after + 1 {
                lines.extend(same.iter().map(|line| tagged(' ', line)));
            } else {
                let end = same.len() - after;
                let first = same[..before].iter();
                lines.extend(first.map(|line| tagged(' ', line)));
                if at > 0 && at < last {
                    lines.push(" …".to_owned());
                }
                lines.extend(same[end..].iter().map(|it| tagged(' ', it)));
            }
            continue;
        }
        for change in op.iter_changes(&olds, &news) {
            if let (ChangeTag::Delete, Some(at)) =
                (change.tag(), change.old_index())
            {
                lines.push(tagged('-', old_lines[at]));
            } else if let Some(at) = change.new_index() {
                lines.push(tagged('+', new_lines[at]));
            }
        }
    }
    lines
}

fn tagged(tag: char, line: &str) -> String {
    format!("{tag}{line}").trim_end().to_owned()
}

/// Its lines without white space, which alone makes no difference.
fn squeezed_lines(text: &str) -> Vec<String> {
    let squeezed = |line: &str| line.split_whitespace().collect::<String>();
    text.lines().map(squeezed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_makes_no_difference() {
        let lines = lines_between("a\nb\nc", "a\n    b\nd");
        assert_eq!(lines, [" a", "     b", "-c", "+d"]);
    }

    #[test]
    fn long_stretches_are_left_out() {
        let old: String = (0..20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("\n10\n", "\nx\n").replace("0\n1\n", "y\n1\n");
        let lines = lines_between(&old, &new);
        let wanted = [
            "-0", "+y", " 1", " 2", " 3", " …", " 7", " 8", " 9", "-10", "+x",
            " 11", " 12", " 13",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn knows_which_items_differ() -> Result<()> {
        let pair = Neighbours::new("epoll_lt", "epoll_et")?;
        let names = pair.differing();
        assert!(names.contains("EventLoop::on_acceptable"), "{names:?}");
        assert!(!names.contains("EventLoop::on_stop"), "{names:?}");
        assert!(pair.named("no_such_item").is_err());
        Ok(())
    }
}
