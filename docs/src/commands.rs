//! The commands that the README and the book show: each is run by a test, or
//! says that it needs the reader's hand.

/// Begins the line before a block whose commands no test runs.
pub const BY_HAND: &str = "<!-- by hand:";

/// A block of commands.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The line that it begins in, from 1.
    pub line: usize,
    /// Why it needs the reader's hand, if it does.
    pub by_hand: Option<String>,
    /// What stands in it.
    pub lines: Vec<String>,
}

impl Block {
    /// What follows each `$ `, without comments.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        let lines = self.lines.iter().filter_map(|it| it.strip_prefix("$ "));
        lines.map(|line| match line.split_once(" #") {
            Some((command, _)) => command.trim_end(),
            None => line.trim_end(),
        })
    }

    /// What is shown as printed, without the commands.
    pub fn printed(&self) -> impl Iterator<Item = &str> {
        let lines = self.lines.iter().map(|it| &**it);
        lines.filter(|line| !line.starts_with("$ "))
    }
}

/// All blocks of a text.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut by_hand = None;
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if let Some(why) = line.strip_prefix(BY_HAND) {
            let why = why.trim_end_matches("-->").trim();
            by_hand = Some(why.to_owned());
        } else if line.trim_end() == "```console" {
            let inner = lines.by_ref().map(|it| it.1);
            let inner = inner.take_while(|line| !line.starts_with("```"));
            let lines = inner.map(str::to_owned).collect();
            let by_hand = by_hand.take();
            blocks.push(Block { line: at + 1, by_hand, lines });
        } else if !line.trim().is_empty() {
            by_hand = None;
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_blocks_and_who_runs_them() {
        let text = "A\n\n<!-- by hand: keys -->\n```console\n$ a  # why\nout\n\
                    ```\n\n```console\n$ b\n```\n```text\n$ c\n```\n";
        let blocks = blocks(text);
        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[0].by_hand.as_deref(), Some("keys"));
        assert_eq!(blocks[0].commands().collect::<Vec<_>>(), ["a"]);
        assert_eq!(blocks[0].printed().collect::<Vec<_>>(), ["out"]);
        assert_eq!((blocks[1].line, &blocks[1].by_hand), (9, &None));
    }
}
