// Where the bars and marks of a lane stand when a stretch of time is `width`
// pixels wide. What is narrower than can be seen becomes one item of many.

// Below this a bar cannot be told from its neighbour.
const NARROW = 2;
// So wide is an item of many: the shading still shows where there are more.
const CELL = 4;
// Marks that stand closer than this hide one another.
const APART = 9;

// The first of `list` for which `holds`, which from then on always does.
function firstThat(list, holds) {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(list[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}

// How long each phase lasted in a bar.
function* phasesOf(bar) {
  const length = bar.to - bar.from;
  if (!bar.dense) yield [bar.phase, length];
  else for (const [phase, share] of bar.dense.shares) yield [phase, share * length];
}

function oneOf(bars, at) {
  return { from: bars[at].from, to: bars[at].to, first: at, last: at };
}

// The bars that are seen, as items: `first` and `last` are places in `bars`.
function layBars(bars, view, width) {
  const scale = width / (view.to - view.from);
  const items = [];
  let many = null;
  let at = firstThat(bars, (bar) => bar.to > view.from);
  for (; at < bars.length && bars[at].from < view.to; at++) {
    const bar = bars[at];
    if ((bar.to - bar.from) * scale >= NARROW || bar.dense) {
      items.push(oneOf(bars, at));
      many = null;
    } else if (many && (bar.to - many.from) * scale <= CELL) {
      many.to = bar.to;
      many.last = at;
    } else {
      many = oneOf(bars, at);
      many.narrow = true;
      items.push(many);
    }
  }
  return items;
}

// The same of marks: each item is the first of those that it hides.
function layMarks(marks, view, width) {
  const scale = width / (view.to - view.from);
  const items = [];
  let at = firstThat(marks, (mark) => mark.at >= view.from);
  for (; at < marks.length && marks[at].at <= view.to; at++) {
    const last = items[items.length - 1];
    if (last && (marks[at].at - last.from) * scale < APART) {
      last.lastMark = at;
    } else {
      const { at: time } = marks[at];
      items.push({ from: time, to: time, mark: at, lastMark: at });
    }
  }
  return items;
}

// Both, with their places in pixels: what is drawn is at least seen.
function lay(lane, view, width) {
  const scale = width / (view.to - view.from);
  const place = (item) => {
    const x = Math.max((item.from - view.from) * scale, -1);
    const end = Math.min((item.to - view.from) * scale, width + 1);
    const least = item.mark === undefined ? NARROW : 0;
    return Object.assign(item, { x, w: Math.max(end - x, least) });
  };
  const bars = layBars(lane.bars, view, width).map(place);
  const marks = layMarks(lane.marks, view, width).map(place);
  return { bars, marks };
}

// Which of the items holds a stop of the lane.
function itemOf(laid, stop) {
  if (stop.mark !== undefined) {
    return laid.marks.find(
      (it) => it.mark <= stop.mark && stop.mark <= it.lastMark);
  }
  return laid.bars.find((it) => it.first <= stop.bar && stop.bar <= it.last);
}

// How long the phases of an item lasted together, the longest first.
function sharesOf(bars, item) {
  const sums = new Map();
  let all = 0;
  for (let at = item.first; at <= item.last; at++) {
    for (const [phase, length] of phasesOf(bars[at])) {
      sums.set(phase, (sums.get(phase) || 0) + length);
      all += length;
    }
  }
  const shares = [...sums].map(([phase, sum]) => [phase, sum / (all || 1)]);
  return shares.sort((a, b) => b[1] - a[1]);
}
