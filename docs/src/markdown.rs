//! Markdown with its places, so that a text can be changed where it must be
//! and nowhere else.

use std::ops::Range;

use pulldown_cmark::{
    Event, HeadingLevel, Options, Parser, Tag, TagEnd, TextMergeWithOffset,
};

/// What checks and builds look for in a text.
#[derive(Debug)]
pub enum Found {
    /// `[words](to)`, or an image.
    Link {
        /// Where it leads.
        to: String,
        /// Where `to` stands in the text.
        place: Range<usize>,
        /// It is a picture.
        image: bool,
    },
    /// `code` in a sentence.
    Code(String),
    /// Words that are neither code nor a link's nor a heading's.
    Prose(Range<usize>),
    /// A heading.
    Heading {
        /// 1 to 6.
        level: HeadingLevel,
        /// Its words without their marks.
        words: String,
    },
}

/// Everything in a text that checks and builds look for.
pub fn find(text: &str) -> Vec<Found> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES;
    let events = Parser::new_ext(text, options).into_offset_iter();
    let mut found = Vec::new();
    let (mut in_link, mut in_code) = (0, false);
    let mut heading: Option<(HeadingLevel, String)> = None;
    for (event, range) in TextMergeWithOffset::new(events) {
        match event {
            Event::Start(Tag::Link { dest_url, .. }) => {
                in_link += 1;
                found.extend(link(text, &dest_url, range, false));
            }
            Event::Start(Tag::Image { dest_url, .. }) => {
                in_link += 1;
                found.extend(link(text, &dest_url, range, true));
            }
            Event::End(TagEnd::Link | TagEnd::Image) => in_link -= 1,
            Event::Start(Tag::CodeBlock(_)) => in_code = true,
            Event::End(TagEnd::CodeBlock) => in_code = false,
            Event::Start(Tag::Heading { level, .. }) => {
                heading = Some((level, String::new()));
            }
            Event::End(TagEnd::Heading(_)) => {
                let heading = heading.take();
                found.extend(
                    heading
                        .map(|(level, words)| Found::Heading { level, words }),
                );
            }
            Event::Text(words) | Event::Code(words) if heading.is_some() => {
                if let Some((_, heading)) = &mut heading {
                    heading.push_str(&words);
                }
            }
            Event::Code(words) => found.push(Found::Code(words.to_string())),
            Event::Text(_) if in_link == 0 && !in_code => {
                found.push(Found::Prose(range));
            }
            _ => {}
        }
    }
    found
}

fn link(
    text: &str,
    to: &str,
    range: Range<usize>,
    image: bool,
) -> Option<Found> {
    let at = text[range.clone()].rfind(to)?;
    let begin = range.start + at;
    let place = begin..begin + to.len();
    Some(Found::Link { to: to.to_owned(), place, image })
}

/// The anchor that a heading of these words gets, here and on code hosts.
pub fn anchor(words: &str) -> String {
    let kept = words.trim().chars().filter_map(|it| match it {
        ' ' => Some('-'),
        '-' | '_' => Some(it),
        it if it.is_alphanumeric() => Some(it),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}

/// All anchors of a text: the second heading of the same words ends in `-1`.
pub fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for found in find(text) {
        let Found::Heading { words, .. } = found else { continue };
        let first = anchor(&words);
        let mut name = first.clone();
        let mut count = 0;
        while anchors.contains(&name) {
            count += 1;
            name = format!("{first}-{count}");
        }
        anchors.push(name);
    }
    anchors
}

/// A text with these places of it replaced.
pub fn replaced(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut done = String::with_capacity(text.len());
    let mut at = 0;
    for (range, new) in edits {
        done.push_str(&text[at..range.start]);
        done.push_str(&new);
        at = range.end;
    }
    done + &text[at..]
}

/// The places of manual pages in a text, such as `epoll_wait(2)`, with name
/// and section.
pub fn man_pages(text: &str) -> Vec<(Range<usize>, &str, char)> {
    let mut pages = Vec::new();
    let is_name = |it: char| it.is_ascii_alphanumeric() || "_.-".contains(it);
    for (at, _) in text.match_indices('(') {
        let mut after = text[at + 1..].chars();
        let (Some(section @ '1'..='8'), Some(')')) =
            (after.next(), after.next())
        else {
            continue;
        };
        let name = text[..at].rsplit(|it| !is_name(it)).next().unwrap_or("");
        if name.starts_with(|it: char| it.is_ascii_lowercase() || it == '_') {
            let begin = at - name.len();
            pages.push((begin..at + 3, name, section));
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_manual_pages() {
        let text = "See epoll_wait(2), or ld.so(8); not f(x), not 2(2).";
        let pages = man_pages(text);
        let names: Vec<_> = pages.iter().map(|it| (it.1, it.2)).collect();
        assert_eq!(names, [("epoll_wait", '2'), ("ld.so", '8')]);
        assert_eq!(&text[pages[0].0.clone()], "epoll_wait(2)");
    }

    #[test]
    fn anchors_are_those_of_code_hosts() {
        let text = "# Why must `select` stop at 1,024?\n\n## A\n\n## A\n";
        let wanted = ["why-must-select-stop-at-1024", "a", "a-1"];
        assert_eq!(anchors(text), wanted);
    }

    #[test]
    fn links_stand_where_they_are_said_to() {
        let text = "[a](b.md#c) ![p](d.svg) `[x](y)` epoll_ctl(2)";
        let mut links = Vec::new();
        let mut prose = String::new();
        for found in find(text) {
            match found {
                Found::Link { to, place, .. } => {
                    assert_eq!(&text[place], to);
                    links.push(to);
                }
                Found::Prose(range) => prose.push_str(&text[range]),
                Found::Code(_) | Found::Heading { .. } => {}
            }
        }
        assert_eq!(links, ["b.md#c", "d.svg"]);
        assert!(prose.contains("epoll_ctl(2)"), "{prose}");
    }
}
