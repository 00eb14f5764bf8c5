// What the page knows: the data as packed.rs wrote it, unpacked.

// What each phase is called, and what it means; in the order in which they
// are stacked where they are too narrow to be told apart.
const PHASES = {
  'waiting': ['waiting', 'asleep; nothing it waits for has happened'],
  'waking-up': ['waking up', 'it has happened, and it does not run yet'],
  'copying': ['copying', 'bytes move between kernel and server'],
  'asking': ['asking', 'takes a client, or says what is wanted'],
  'wasted': ['wasted', 'a call that was made for nothing'],
  'running': ['running', 'the server’s own code, and the telling of it'],
  'set-aside': ['set aside', 'it would run, and another has the core'],
  'in-flight': ['in flight', 'somebody else does the work'],
  'sending': ['sending', 'a client sends'],
  'unanswered': ['unanswered', 'not all has come back'],
  'receiving': ['receiving', 'a client receives'],
};

// Each moment's sign, in a square of 10 by 10 around the origin, and what
// the reader is told that it is.
const MOMENTS = {
  'connect': ['M0-4A4 4 0 1 0 .1-4ZM0-1.6A1.6 1.6 0 1 1-.1-1.6Z', 'connects'],
  'fin': ['M-1.5-4.5V4.5H1.5V-4.5Z', 'FIN'],
  'reset': ['M-4-2.6L-2.6-4L0-1.4L2.6-4L4-2.6L1.4 0L4 2.6L2.6 4L0 1.4L-2.6 4L-4 2.6L-1.4 0Z', 'reset'],
  'close': ['M-3.5-3.5H3.5V3.5H-3.5Z', 'closes'],
  'stop-reading': ['M-3.5-4H-1V4H-3.5ZM1-4H3.5V4H1Z', 'stops reading'],
  'read': ['M-3-4.2L4 0L-3 4.2Z', 'reads again'],
  'signal': ['M1.5-5L-3.5.8H-.6L-1.5 5L3.5-.8H.6Z', 'a signal'],
  'submit': ['M-1.2-4.5H1.2V-.5H4L0 4.5L-4-.5H-1.2Z', 'hands it over'],
  'complete': ['M-1.2 4.5H1.2V.5H4L0-4.5L-4 .5H-1.2Z', 'finds it done'],
  'fork': ['M-1 4.5V.8L-4-3L-2.4-4.3L0-1.4L2.4-4.3L4-3L1 .8V4.5Z', 'forks'],
  'stop': ['M-4-4H4V4H-4ZM-2-2V2H2V-2Z', 'is stopped'],
  'continue': ['M-4-4L0 0L-4 4ZM0-4L4 0L0 4Z', 'goes on'],
};

// Rows of so many numbers each.
function rows(numbers, width) {
  const count = numbers.length / width;
  return Array.from({ length: count }, (_, row) =>
    numbers.slice(row * width, (row + 1) * width));
}

function unpackBars(lane, texts) {
  let [behind, last] = [0, 0];
  const bars = rows(lane.bars, 4).map(([phase, step, length, since]) => {
    const from = behind + step;
    behind = from + length;
    last += since || 0;
    const call = since === null ? -1 : last;
    return { phase: texts[phase], from, to: behind, call };
  });
  for (const [at, dense] of lane.dense) bars[at].dense = dense;
  return bars;
}

function unpackMarks(lane, texts) {
  let at = 0;
  return rows(lane.marks, 4).map(([what, step, text, call]) => {
    at += step;
    return { what: texts[what], at, text: texts[text], call };
  });
}

function unpackCalls(figure, texts) {
  let from = 0;
  return rows(figure.calls, 8).map((row) => {
    const [call, about, result, why] = row.slice(0, 4).map((it) => texts[it]);
    const [step, length, first, many] = row.slice(4);
    from += step;
    const bytes = first < 0 ? null : [first, first + many];
    return { call, about, result, why, from, to: from + length, bytes };
  });
}

function unpackLane(lane, texts) {
  const bars = unpackBars(lane, texts);
  const marks = unpackMarks(lane, texts);
  // All there is to step through, in the order of time.
  const stops = bars.map((bar, at) => ({ bar: at, at: bar.from }))
    .concat(marks.map((mark, at) => ({ mark: at, at: mark.at })))
    .sort((a, b) => a.at - b.at);
  return {
    who: texts[lane.who], name: texts[lane.name],
    from: lane.from, to: lane.to, off: lane.off_cpu, bars, marks, stops,
  };
}

// When the message that the lens is about was sent; where it was sent long
// before, the lens begins as it is taken up.
function sentAt(lanes, [from, to]) {
  const sends = lanes.flatMap((lane) => lane.bars)
    .filter((bar) => bar.phase === 'sending')
    .filter((bar) => from <= bar.from && bar.from < to);
  return sends.length ? Math.min(...sends.map((bar) => bar.from)) : from;
}

function unpack(packed) {
  const figures = packed.figures.map((figure) => {
    const { model, span, lens } = figure;
    const calls = unpackCalls(figure, packed.texts);
    const lanes = figure.lanes.map((lane) => unpackLane(lane, packed.texts));
    return { model, span, lens, sent: sentAt(lanes, lens), calls, lanes };
  });
  return { span: packed.span, figures };
}
