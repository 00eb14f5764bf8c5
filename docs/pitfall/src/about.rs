//! What the head of a pitfall's file says.

use anyhow::{Context, Result};

/// The head of a pitfall's file, in its four parts.
#[derive(Debug, PartialEq, Eq)]
pub struct About {
    /// The mistake, in a sentence.
    pub title: String,
    /// What is seen.
    pub symptom: String,
    /// Why.
    pub cause: String,
    /// What to do instead.
    pub fix: String,
}

impl About {
    /// Reads it from the `//!` lines of a source text.
    ///
    /// Errors name the part that is missing.
    pub fn of(source: &str) -> Result<About> {
        let head = source.lines().map_while(|line| line.strip_prefix("//!"));
        let head: Vec<&str> = head.map(str::trim).collect();
        let paragraphs: Vec<String> = head
            .split(|line| line.is_empty())
            .filter(|lines| !lines.is_empty())
            .map(|lines| lines.join(" "))
            .collect();
        let part = |name: &str| {
            let part = paragraphs.iter().find_map(|it| it.strip_prefix(name));
            let part = part.with_context(|| {
                format!("the head of the file has no paragraph '{name}'")
            })?;
            Ok::<_, anyhow::Error>(part.trim().to_owned())
        };
        Ok(About {
            title: paragraphs.first().context("no head")?.clone(),
            symptom: part("Symptom:")?,
            cause: part("Cause:")?,
            fix: part("Fix:")?,
        })
    }

    /// What stands below the broken twin.
    pub(crate) fn broken(&self) -> String {
        let text = format!("Symptom: {}\nCause: {}", self.symptom, self.cause);
        textwrap::fill(&text, 80)
    }

    /// What stands below the mended twin.
    pub(crate) fn mended(&self) -> String {
        textwrap::fill(&format!("The symptom has gone.\nFix: {}", self.fix), 80)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_four_parts() {
        let source = "//! A mistake.\n//!\n//! Symptom: it\n//! stalls.\n//!\n\
                      //! Cause: x(2).\n//!\n//! Fix: drain.\nuse a;\n";
        let about = About::of(source).expect("four parts");
        assert_eq!(about.title, "A mistake.");
        assert_eq!(about.symptom, "it stalls.");
        assert_eq!((&*about.cause, &*about.fix), ("x(2).", "drain."));
    }

    #[test]
    fn a_missing_part_is_named() {
        let error = About::of("//! A mistake.\n//!\n//! Symptom: x.\n");
        let error = format!("{:#}", error.expect_err("no cause"));
        assert!(error.contains("'Cause:'"), "{error}");
    }
}
