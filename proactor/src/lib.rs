//! Echo by completions.
#![allow(missing_docs)]
