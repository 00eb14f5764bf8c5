// Lanes as SVG: one path for each phase of a lane, however many bars it has.

const SVG = 'http://www.w3.org/2000/svg';
// How high a lane is, where its bars stand in it, and whether there is room
// for words above them.
const TALL = { height: 36, top: 14, thick: 20, words: true };
const SMALL = { height: 13, top: 2, thick: 9, words: false };
// More lanes than this are made small.
const FEW = 16;
// Sleep lies low, work is tall: the share of a lane that a phase fills.
const HEIGHTS = {
  'waiting': 0.36, 'set-aside': 0.36, 'unanswered': 0.36,
  'waking-up': 0.68, 'running': 0.68, 'in-flight': 0.68,
};
// Of a label, in pixels.
const LETTER = 6.1;

function make(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  if (parent) parent.append(element);
  return element;
}

function box(x, y, w, h) {
  return `M${x.toFixed(1)} ${y.toFixed(1)}h${w.toFixed(1)}v${h.toFixed(1)}` +
    `h${(-w).toFixed(1)}z`;
}

// Paths by their class, each drawn once with all its boxes.
class Paths {
  constructor() { this.all = new Map(); }

  add(name, path) { this.all.set(name, (this.all.get(name) || '') + path); }

  drawInto(group) {
    for (const [name, d] of this.all) make('path', { class: name, d }, group);
  }
}

function thickness(phase, size) {
  const thick = (HEIGHTS[phase] || 1) * size.thick;
  return [size.top + size.thick - thick, thick];
}

// The phases of an item one above the other, each as high as its share.
function stack(paths, lane, item, size, suffix) {
  const shares = new Map(sharesOf(lane.bars, item));
  let y = size.top;
  for (const phase of Object.keys(PHASES)) {
    const high = (shares.get(phase) || 0) * size.thick;
    if (high > 0) paths.add(phase + suffix, box(item.x, y, item.w, high));
    y += high;
  }
}

function drawBars(group, lane, items, size) {
  const [wide, combs, narrow] = [new Paths(), new Paths(), new Paths()];
  for (const item of items) {
    const bar = lane.bars[item.first];
    if (bar.dense) {
      stack(wide, lane, item, size, '');
      combs.add('rounds', box(item.x, size.top, item.w, size.thick));
    } else if (item.narrow) {
      stack(narrow, lane, item, size, ' plain');
    } else {
      wide.add(bar.phase, box(item.x, ...sided(bar.phase, item, size)));
    }
  }
  // What is narrow must not drown between neighbours that are wide.
  for (const paths of [wide, combs, narrow]) paths.drawInto(group);
}

function sided(phase, item, size) {
  const [y, thick] = thickness(phase, size);
  return [y, item.w, thick];
}

function drawMarks(group, lane, items, size) {
  const scale = size.words ? 1 : 0.8;
  const y = size.words ? size.top - 8 : size.top + size.thick / 2;
  for (const item of items) {
    const { what } = lane.marks[item.mark];
    const x = item.x.toFixed(1);
    if (size.words) {
      const d = `M${x} ${y + 5}V${size.top + size.thick}`;
      make('path', { class: 'stem', d }, group);
    }
    make('path', {
      class: `mark ${what}`, d: MOMENTS[what][0],
      transform: `translate(${x} ${y})scale(${scale})`,
    }, group);
  }
}

// What is written above an item, if anything.
function wordOf(figure, lane, item) {
  const bar = lane.bars[item.first];
  if (bar.dense) return `${counted(bar.dense.rounds)} rounds`;
  if (item.last > item.first) return '';
  const call = figure.calls[bar.call];
  if (!call) return '';
  // Of a call in several phases, the first is named.
  const before = lane.bars[item.first - 1];
  return before && before.call === bar.call && item.x >= 0 ? '' : call.call;
}

// Stretches in which many bars stand side by side, as items of their own.
function* crowds(items) {
  let crowd = null;
  for (const item of items) {
    const isMore = crowd && item.narrow && item.x - crowd.x - crowd.w < 1;
    if (isMore) {
      crowd.w = item.x + item.w - crowd.x;
      crowd.last = item.last;
    } else {
      if (crowd) yield crowd;
      crowd = item.narrow ? { ...item } : null;
    }
  }
  if (crowd) yield crowd;
}

// What is to be written where, the widest first.
function wordsOf(figure, lane, items, width) {
  const words = items.filter((item) => !item.narrow && item.w >= 3)
    .map((item) => ({ item, word: wordOf(figure, lane, item) }));
  for (const item of crowds(items)) {
    words.push({ item, word: `${counted(item.last - item.first + 1)} bars` });
  }
  return words.filter(({ word }) => word).map(({ item, word }) => {
    const x = Math.max(item.x, 1);
    const end = x + word.length * LETTER + 5;
    const fits = end <= Math.min(item.x + item.w, width) + 5;
    return { word, x, end, fits, w: item.w, isThin: isThin(lane, item) };
  }).sort((a, b) => b.w - a.w).slice(0, 200);
}

// Sleep and rounds have neighbours that matter more: theirs must fit.
function isThin(lane, { first, narrow }) {
  const { phase, dense } = lane.bars[first];
  return narrow || dense || HEIGHTS[phase] < 0.5;
}

function drawWords(group, figure, lane, laid, width) {
  const taken = laid.marks.map((mark) => [mark.x - 7, mark.x + 7]);
  const isFree = ({ x, end }) =>
    end <= width && taken.every((it) => end <= it[0] || x >= it[1]);
  for (const it of wordsOf(figure, lane, laid.bars, width)) {
    if ((it.isThin && !it.fits) || !isFree(it)) continue;
    taken.push([it.x, it.end]);
    make('text', { class: 'word', x: it.x.toFixed(1), y: TALL.top - 4 }, group)
      .textContent = it.word;
  }
}

function drawLane(group, figure, lane, size, view, width) {
  group.replaceChildren();
  const laid = lay(lane, view, width);
  const scale = width / (view.to - view.from);
  const [from, to] = [lane.from, lane.to].map((at) =>
    Math.min(Math.max((at - view.from) * scale, 0), width));
  const foot = size.top + size.thick;
  make('path', { class: 'life', d: `M${from} ${foot}H${to}` }, group);
  drawBars(group, lane, laid.bars, size);
  drawMarks(group, lane, laid.marks, size);
  if (size.words) drawWords(group, figure, lane, laid, width);
  return laid;
}
