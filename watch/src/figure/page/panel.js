// One model's lanes, and the place in them where the reader is.

function element(name, className, parent) {
  const made = document.createElement(name);
  made.className = className;
  if (parent) parent.append(made);
  return made;
}

const WHO = {
  'client': 'client', 'thread': 'thread', 'process': 'process',
  'helper-thread': 'glibc’s thread', 'kernel': 'the kernel',
};

// More lanes than this are not drawn unless asked for: those of which there
// is least to tell are left out.
const MOST = 40;

function busiest(lanes) {
  const tells = (lane) => lane.bars.length + lane.marks.length;
  const least = lanes.map(tells).sort((a, b) => b - a)[MOST - 1] || 0;
  let room = MOST - lanes.filter((lane) => tells(lane) > least).length;
  return lanes.filter((lane) =>
    tells(lane) > least || (tells(lane) === least && room-- > 0));
}

class Panel {
  constructor(root, figure) {
    Object.assign(this, { root, figure, on: true, seen: false, stale: true });
    this.plot = root.querySelector('.plot');
    this.plot.setAttribute('role', 'group');
    this.plot.setAttribute('aria-label', `lanes of ${figure.model}`);
    const shown = busiest(figure.lanes);
    this.build(shown);
    if (shown.length < figure.lanes.length) this.offerAll(shown.length);
  }

  build(lanes) {
    const few = lanes.length <= FEW;
    this.size = few ? TALL : SMALL;
    this.plot.classList.toggle('small', !few);
    this.plot.replaceChildren();
    const names = element('div', 'names', this.plot);
    this.strips = element('div', 'strips', this.plot);
    this.svg = make('svg', { 'aria-hidden': 'true' }, this.strips);
    this.height = lanes.length * this.size.height;
    this.ground = make('path', { class: 'servers' }, this.svg);
    this.grid = make('path', { class: 'grid' }, this.svg);
    this.after = make('path', { class: 'after' }, this.svg);
    this.lens = make('path', { class: 'lens' }, this.svg);
    this.lanes = lanes.map((lane, at) => this.addLane(lane, at, names));
    this.fore = make('rect', { class: 'fore', visibility: 'hidden' }, this.svg);
    // Where the keyboard is; the first of the server, where the lesson is.
    const server = lanes.findIndex((lane) => lane.who !== 'client');
    this.lane = this.lanes[Math.max(server, 0)];
    this.stop = this.lane && this.lane.lane.stops[0];
    this.addCursor();
  }

  offerAll(shown) {
    const all = this.figure.lanes;
    const button = element('button', 'all', this.root);
    button.type = 'button';
    button.textContent = `${shown} of ${all.length} lanes: show the others too`;
    button.addEventListener('click', () => {
      button.remove();
      this.build(all);
      this.draw(this.shown, this.width, []);
      this.cursor.focus();
    });
  }

  addLane(lane, at, names) {
    const name = element('span', `name ${lane.who}`, names);
    name.textContent = lane.name;
    name.title = `${lane.name} (${WHO[lane.who]})`;
    name.style.height = `${this.size.height}px`;
    const transform = `translate(0 ${at * this.size.height})`;
    const group = make('g', { class: lane.who, transform }, this.svg);
    return { lane, group, at, laid: { bars: [], marks: [] } };
  }

  draw(view, width, ticks) {
    this.stale = false;
    this.shown = view;
    this.width = width;
    const seen = this.view = inFigure(view, this.figure);
    this.svg.setAttribute('viewBox', `0 0 ${width} ${this.height}`);
    const scale = width / (view.to - view.from);
    const column = (from, to) => {
      const x = Math.max((from - seen.from) * scale, -2);
      const end = Math.min((to - seen.from) * scale, width + 2);
      return end > x ? box(x, 0, end - x, this.height) : '';
    };
    const clients = this.lanes.filter((it) => it.lane.who === 'client').length;
    const y = clients * this.size.height;
    this.ground.setAttribute('d', box(0, y, width, this.height - y));
    this.grid.setAttribute('d', ticks.map(({ at }) =>
      `M${((at - view.from) * scale).toFixed(1)} 0V${this.height}`).join(''));
    this.after.setAttribute('d', column(this.figure.span, seen.to) +
      column(seen.from, 0));
    const isScene = view.kind === 'scene';
    this.lens.setAttribute('d', isScene ? column(...this.figure.lens) : '');
    for (const it of this.lanes) {
      it.laid = drawLane(it.group, this.figure, it.lane, this.size, seen, width);
    }
    this.followCursor();
    this.bringFore(null);
  }

  // The rectangle of an item, in pixels of the strips.
  frameOf(it, item) {
    const least = item.mark === undefined ? 8 : 14;
    const w = Math.max(item.w, least);
    const x = item.mark === undefined && item.w >= least ?
      item.x : item.x + item.w / 2 - w / 2;
    const left = Math.min(Math.max(x, 0), this.width - 4);
    return {
      x: left, y: it.at * this.size.height,
      w: Math.max(Math.min(x + w, this.width) - left, 4), h: this.size.height,
    };
  }

  // The item of the lane and the stop where the keyboard is, if it is seen.
  current() {
    return this.stop && itemOf(this.lane.laid, this.stop);
  }

  // Where the keyboard is, in pixels; at the edge if it is out of sight.
  cursorFrame() {
    const item = this.current();
    if (item) return this.frameOf(this.lane, item);
    const { bars, marks } = this.lane.lane;
    const { bar, mark } = this.stop || {};
    const at = bar === undefined ? marks[mark] && marks[mark].at : bars[bar].from;
    const x = at < this.view.to ? 0 : this.width - 4;
    const y = this.lane.at * this.size.height;
    return { x, y, w: 4, h: this.size.height };
  }

  followCursor() {
    if (!this.lane) return;
    const item = this.current();
    const label = item ? inOneBreath(this.figure, this.lane.lane, item) :
      `${this.figure.model}, ${this.lane.lane.name}`;
    this.cursor.setAttribute('aria-label', label);
    const { x, y, w, h } = this.cursorFrame();
    Object.assign(this.cursor.style, {
      left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${h}px`,
    });
  }

  // A new element each time: a screen reader tells of what is newly focused,
  // and not of what is relabelled.
  addCursor() {
    const old = this.cursor;
    this.cursor = element('button', 'cursor', this.strips);
    this.cursor.type = 'button';
    this.cursor.setAttribute('aria-describedby', 'readout');
    this.cursor.setAttribute('aria-label', this.figure.model);
    return old;
  }

  moveTo(it, stop) {
    this.lane = it;
    this.stop = stop;
    const old = this.addCursor();
    this.followCursor();
    this.cursor.focus({ preventScroll: true });
    old.remove();
  }

  // Outlines an item of a lane, or none.
  bringFore(found) {
    this.fore.setAttribute('visibility', found ? 'visible' : 'hidden');
    if (!found) return;
    const { x, y, w, h } = this.frameOf(found.it, found.item);
    const frame = { x: x + 0.5, y: y + 0.5, width: w - 1, height: h - 1 };
    for (const [key, value] of Object.entries(frame)) {
      this.fore.setAttribute(key, value);
    }
  }

  // What stands at a place: a mark before a bar, a narrow bar before a wide.
  at(x, y) {
    const it = this.lanes[Math.floor(y / this.size.height)];
    if (!it) return null;
    const above = y - it.at * this.size.height < this.size.top;
    const near = it.laid.marks.filter((item) => Math.abs(item.x - x) < 7);
    if (near.length && (above || !this.size.words)) return { it, item: near[0] };
    const away = (item) => Math.max(item.x - x, x - item.x - item.w, 0);
    const hit = it.laid.bars.filter((item) => away(item) <= 3);
    hit.sort((a, b) => away(a) - away(b) || a.w - b.w);
    const item = hit[0] || near[0];
    return item ? { it, item } : null;
  }
}

function stopOf(item) {
  return item.mark === undefined ? { bar: item.first } : { mark: item.mark };
}

// The stop of the lane that comes next, or before, and is another item.
function nextStop(it, stop, step) {
  const stops = it.lane.stops;
  const here = stops.findIndex((one) =>
    one.mark === stop.mark && one.bar === stop.bar);
  const item = itemOf(it.laid, stop);
  let at = here + step;
  while (stops[at] && item && itemOf(it.laid, stops[at]) === item) at += step;
  return stops[at];
}

// The item of a lane that stands nearest to a place.
function nearest(it, x) {
  const all = [...it.laid.bars, ...it.laid.marks];
  const away = (item) => Math.abs(item.x + item.w / 2 - x);
  return all.reduce((best, item) =>
    !best || away(item) < away(best) ? item : best, null);
}
