//! How phases and marks look: by colour, by pattern and by height, so that
//! they are told apart in grey as well. The colours are those of Okabe and
//! Ito, which most of the colour-blind tell apart.

use crate::figure::data::{Phase, What};

/// How a phase is painted and what a reader is told of it.
pub struct Paint {
    pub phase: Phase,
    /// Its name in the style sheet.
    pub class: &'static str,
    /// The part of the lane's height that it fills: who sleeps lies low.
    pub height: f64,
    /// In a word.
    pub name: &'static str,
    /// In a few more.
    pub says: &'static str,
}

/// In the order of the legend.
pub const PAINTS: &[Paint] = &[
    paint(Phase::Sending, "sending", 1.0, "sends", ""),
    paint(Phase::Unanswered, "unanswered", 0.36, "is not answered yet", ""),
    paint(Phase::Receiving, "receiving", 1.0, "receives", ""),
    paint(
        Phase::Waiting,
        "waiting",
        0.36,
        "waiting",
        "asleep; nothing has happened",
    ),
    paint(
        Phase::WakingUp,
        "waking",
        0.68,
        "waking up",
        "it has happened; not running yet",
    ),
    paint(Phase::Copying, "copying", 1.0, "copying", "bytes move"),
    paint(
        Phase::Asking,
        "asking",
        1.0,
        "asking",
        "a call that returns at once",
    ),
    paint(Phase::Wasted, "wasted", 1.0, "wasted", "a call for nothing"),
    paint(
        Phase::Running,
        "running",
        0.68,
        "running",
        "its own code, and writing this record",
    ),
    paint(
        Phase::SetAside,
        "aside",
        0.36,
        "set aside",
        "would run, but another has the core",
    ),
    paint(
        Phase::InFlight,
        "flight",
        0.68,
        "in flight",
        "done by another meanwhile",
    ),
];

const fn paint(
    phase: Phase,
    class: &'static str,
    height: f64,
    name: &'static str,
    says: &'static str,
) -> Paint {
    Paint { phase, class, height, name, says }
}

/// The paint of a phase.
pub fn of(phase: Phase) -> &'static Paint {
    let found = PAINTS.iter().find(|paint| paint.phase == phase);
    found.expect("every phase has a paint")
}

/// A mark's shape, around the origin, and what it says.
pub fn shape(what: What) -> (&'static str, &'static str) {
    match what {
        What::Connect => ("M-2.5 -4L3 0L-2.5 4Z", "connects"),
        What::Fin => ("M-1 -4.5h2v9h-2z", "FIN"),
        What::Reset => ("M-4 -3L-3 -4L4 3L3 4ZM-4 3L-3 4L4 -3L3 -4Z", "reset"),
        What::Close => ("M-3 -3h6v6h-6z", "closes"),
        What::StopReading => ("M-3 -4h2v8h-2zM1 -4h2v8h-2z", "stops reading"),
        What::Read => ("M-3 -4L4 0L-3 4Z", "reads again"),
        What::Signal => ("M-3.5 -6h7L0 0Z", "a signal comes"),
        What::Submit => ("M-3 0h6L0 -6Z", "gives an operation away"),
        What::Complete => {
            ("M0 -6.5a3 3 0 1 0 .01 0z", "learns that it is over")
        }
        What::Fork => ("M0 -7L3.5 -3.5L0 0L-3.5 -3.5Z", "forks"),
        What::Stop => ("M-4 -8h3v8h-3zM1 -8h3v8h-3z", "is stopped"),
        What::Continue => ("M-3 -8L4 -4L-3 0Z", "goes on"),
    }
}

/// The style sheet and the patterns.
pub const DEFS: &str = r##"<style>
svg{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.paper{fill:#fff}.ink{fill:#1b1f24}.soft{fill:#57606a}.mark{fill:#1b1f24}
.rule{stroke:#d0d7de;stroke-width:1}.grid{stroke:#eaeef2;stroke-width:1}
.title{font-weight:650}.head{font-weight:600}
.lead{stroke:#8c959f;stroke-width:.6}.glass{fill:#0072b2;fill-opacity:.08}
.there{fill:#b3bac2}.edge{stroke:#0072b2;stroke-width:1;stroke-opacity:.55}
.sending{fill:#1b1f24}.receiving{fill:url(#receiving)}.unanswered{fill:url(#unanswered)}
.waiting{fill:url(#waiting)}.waking{fill:url(#waking)}.copying{fill:#0072b2}
.asking{fill:url(#asking)}.wasted{fill:url(#wasted)}.running{fill:url(#running)}
.aside{fill:url(#aside)}.flight{fill:url(#flight)}.faint{fill-opacity:.5}
.b-receiving{fill:#e69f00}.l-receiving{stroke:#fff}
.b-unanswered{fill:#f3f4f6}.l-unanswered{stroke:#6e7781}
.b-waiting{fill:#d9e8f5}.l-waiting{stroke:#8db8dc}
.b-waking{fill:#f5e663}.l-waking{stroke:#8a7a00}
.b-asking{fill:#cc79a7}.l-asking{fill:#fff}
.b-wasted{fill:#d55e00}.l-wasted{stroke:#fff}
.b-running{fill:#009e73}.l-running{stroke:#5cc4a5}
.b-aside{fill:#e6e6e6}.l-aside{fill:#666}
.b-flight{fill:#56b4e9}.l-flight{stroke:#0b4f7d}
@media(prefers-color-scheme:dark){
.paper{fill:#12161c}.ink{fill:#e8edf2}.soft{fill:#9da7b3}.mark{fill:#e8edf2}
.rule{stroke:#3a424d}.grid{stroke:#232a33}.lead{stroke:#7d8794}
.glass{fill:#56b4e9;fill-opacity:.12}.edge{stroke:#56b4e9}
.sending{fill:#f0f3f6}.there{fill:#566070}.copying{fill:#4aa3e0}
.l-receiving{stroke:#12161c}.b-unanswered{fill:#232a33}.l-unanswered{stroke:#8c959f}
.b-waiting{fill:#1c3347}.l-waiting{stroke:#3f6f96}
.l-wasted{stroke:#12161c}.l-asking{fill:#12161c}
.b-running{fill:#0a8f6a}.l-running{stroke:#0c5f48}
.b-aside{fill:#333a44}.l-aside{fill:#aab}
}</style>
<pattern id="receiving" width="4" height="4" patternUnits="userSpaceOnUse"><rect class="b-receiving" width="4" height="4"/><path class="l-receiving" d="M0 2h4" stroke-width="1"/></pattern>
<pattern id="unanswered" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect class="b-unanswered" width="5" height="5"/><path class="l-unanswered" d="M0 0v5" stroke-width="1.6"/></pattern>
<pattern id="waiting" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="b-waiting" width="6" height="6"/><path class="l-waiting" d="M0 0v6" stroke-width="1.4"/></pattern>
<pattern id="waking" width="3" height="3" patternUnits="userSpaceOnUse"><rect class="b-waking" width="3" height="3"/><path class="l-waking" d="M1 0v3" stroke-width=".8"/></pattern>
<pattern id="asking" width="4" height="4" patternUnits="userSpaceOnUse"><rect class="b-asking" width="4" height="4"/><circle class="l-asking" cx="2" cy="2" r=".9"/></pattern>
<pattern id="wasted" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="b-wasted" width="5" height="5"/><path class="l-wasted" d="M0 0v5" stroke-width="2"/></pattern>
<pattern id="running" width="4" height="4" patternUnits="userSpaceOnUse"><rect class="b-running" width="4" height="4"/><path class="l-running" d="M0 1h4" stroke-width=".9"/></pattern>
<pattern id="aside" width="4" height="4" patternUnits="userSpaceOnUse"><rect class="b-aside" width="4" height="4"/><circle class="l-aside" cx="2" cy="2" r=".8"/></pattern>
<pattern id="flight" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect class="b-flight" width="6" height="6"/><path class="l-flight" d="M0 0v6" stroke-width="1.2"/></pattern>
"##;
