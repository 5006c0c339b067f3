// Parts that every explorer is made of. Files are joined into one module; see explorer.py.

/** Make an element: properties that start with "on" are listeners, the others attributes. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  // A notebook takes arrows and Enter from whatever has the focus, unless that element itself says so.
  if (/^(input|select|button)$/.test(tag)) element.dataset.lmSuppressShortcuts = "true";
  element.append(...children);
  return element;
}

/** Hide an explorer's own controls where a notebook has others for them. */
function ownControls(model, root) {
  const follow = () => root.classList.toggle("m3-bare", !model.get("own_controls"));
  model.on("change:own_controls", follow);
  follow();
  return () => model.off("change:own_controls", follow);
}

/** Ask Python, or in a page without a kernel the answers written with it. */
function connect(model) {
  if (model.link) return model.link;
  if (model.recorded) {
    return {
      async ask(request) {
        const [content, buffers] = model.recorded(request);
        if (content.error) throw new Error(content.error);
        return { content, buffers };
      },
      close() {},
    };
  }
  const waiting = new Map();
  let last = 0;
  const receive = (content, buffers) => {
    const found = waiting.get(content.id);
    if (!found) return;
    waiting.delete(content.id);
    if (content.error) found.reject(new Error(content.error));
    else found.resolve({ content, buffers });
  };
  model.on("msg:custom", receive);
  // Views of one widget hear each other's answers, so their numbers must differ.
  const own = Math.random().toString(36).slice(2);
  return {
    ask(request) {
      const id = `${own}-${(last += 1)}`;
      return new Promise((resolve, reject) => {
        waiting.set(id, { resolve, reject });
        model.send({ ...request, id });
      });
    },
    close() {
      model.off("msg:custom", receive);
      waiting.clear();
    },
  };
}

/** Stands in for a widget inside another one: its values live in the page, the outer one asks for it. */
function nested(state, link, what) {
  const listeners = new Map();
  const heard = (event) => listeners.get(event) || [];
  return {
    link: { ask: (request) => link.ask({ ...request, ask: `${what} ${request.ask}` }), close() {} },
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const call of heard(`change:${name}`)) call();
    },
    save_changes() {},
    on: (event, call) => listeners.set(event, [...heard(event), call]),
    off: (event, call) => listeners.set(event, heard(event).filter((each) => each !== call)),
  };
}

/** Run one call at a time; of those that come meanwhile, only the last. */
function latest(call) {
  let running = false;
  let next = null;
  return async function run(...given) {
    if (running) {
      next = given;
      return;
    }
    running = true;
    try {
      await call(...given);
    } finally {
      running = false;
      if (next) {
        const then = next;
        next = null;
        run(...then);
      }
    }
  };
}

/** A memory of the latest few answers. */
function remember(size) {
  const kept = new Map();
  return {
    get(key) {
      const value = kept.get(key);
      if (value !== undefined) {
        kept.delete(key);
        kept.set(key, value);
      }
      return value;
    },
    set(key, value) {
      kept.set(key, value);
      if (kept.size > size) kept.delete(kept.keys().next().value);
    },
  };
}

/** Numbers in a buffer; copied, since a message's buffer need not be aligned. */
function floats(buffer) {
  const { buffer: bytes, byteOffset, byteLength } = buffer;
  return new Float32Array(bytes.slice(byteOffset, byteOffset + byteLength));
}

function octets(buffer) {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

/** Least and greatest finite value of several arrays, without a share at each end. */
function range(arrays, share = 0) {
  const all = arrays.flatMap((values) => Array.from(values)).filter(Number.isFinite);
  if (!all.length) return [0, 1];
  all.sort((a, b) => a - b);
  const cut = Math.floor(share * (all.length - 1));
  const [low, high] = [all[cut], all[all.length - 1 - cut]];
  return high > low ? [low, high] : [low, low + Math.max(Math.abs(low) * 1e-3, 1e-12)];
}

/** A map from values to colours: `palette` has 256 triples. */
function scale(palette, low, high, logarithmic = false) {
  // Three decades: what is below one thousandth of the greatest value looks the same.
  const floor = high / 1000;
  const place = logarithmic
    ? (value) => Math.log(Math.max(value, floor) / floor) / Math.log(1000)
    : (value) => (value - low) / (high - low);
  return {
    low: logarithmic ? floor : low,
    high,
    index: (value) => Math.max(0, Math.min(255, Math.floor(256 * place(value)))),
    color(value) {
      if (!Number.isFinite(value)) return "#dddddd";
      const at = 3 * this.index(value);
      return `rgb(${palette[at]},${palette[at + 1]},${palette[at + 2]})`;
    },
  };
}

function gradient(palette) {
  const stops = [];
  for (let step = 0; step <= 16; step += 1) {
    const at = 3 * Math.min(255, step * 16);
    stops.push(`rgb(${palette[at]},${palette[at + 1]},${palette[at + 2]})`);
  }
  return `linear-gradient(to right, ${stops.join(",")})`;
}

function number(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("-", "−");
  return value.toPrecision(3).replace("-", "−");
}

/** A labelled menu. Options are [value, text]. */
function menu(label, options, chosen, change) {
  const select = make("select", { onchange: () => change(select.value) });
  const update = (now, then = options) => {
    select.replaceChildren(
      ...then.map(([value, text]) => make("option", { value: String(value) }, text)),
    );
    select.value = String(now);
  };
  update(chosen);
  return { element: make("label", { class: "m3-control" }, make("span", {}, label), select), update };
}

/** A labelled slider over positions, which shows the value it stands at. */
function slider(label, count, show, change) {
  const input = make("input", { type: "range", min: 0, max: Math.max(0, count - 1), step: 1 });
  const output = make("output");
  input.addEventListener("input", () => change(Number(input.value)));
  return {
    element: make("label", { class: "m3-control" }, make("span", {}, label), input, output),
    update(position) {
      input.value = position;
      output.textContent = show(position);
      input.setAttribute("aria-valuetext", show(position));
    },
  };
}

function checkbox(label, chosen, change, mark) {
  const input = make("input", { type: "checkbox", onchange: () => change(input.checked) });
  input.checked = chosen;
  const legend = mark ? [make("i", { class: `m3-line ${mark}` })] : [];
  return { element: make("label", { class: "m3-check" }, input, ...legend, label), input };
}

/** A grey and compressed copy of a frame: recognised without drowning what lies over it. */
function backdrop(pixels, width, height) {
  const canvas = make("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    const light = 0.299 * pixels[3 * i] + 0.587 * pixels[3 * i + 1] + 0.114 * pixels[3 * i + 2];
    image.data.fill(Math.round(38 + 0.75 * light), 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** A frame in its own colours. */
function photograph(pixels, width, height) {
  const canvas = make("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    image.data.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** A picture of one value per pixel; what is not known stays grey. */
function heat(values, width, height, colors, palette, canvas = make("canvas", { width, height })) {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    const value = values[i];
    const color = Number.isFinite(value)
      ? palette.subarray(3 * colors.index(value), 3 * colors.index(value) + 3)
      : [150, 150, 150];
    image.data.set(color, 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Borders of a region of cells, as segments [x0, y0, x1, y1] in units of the whole width and height. */
function borders(inside, rows, columns) {
  const at = (row, column) =>
    row >= 0 && row < rows && column >= 0 && column < columns && inside[row * columns + column];
  const found = [];
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      if (!at(row, column)) continue;
      const [left, right] = [column / columns, (column + 1) / columns];
      const [top, bottom] = [row / rows, (row + 1) / rows];
      if (!at(row - 1, column)) found.push([left, top, right, top]);
      if (!at(row + 1, column)) found.push([left, bottom, right, bottom]);
      if (!at(row, column - 1)) found.push([left, top, left, bottom]);
      if (!at(row, column + 1)) found.push([right, top, right, bottom]);
    }
  }
  return found;
}

/** Outline styles: told apart by dashes as well as by colour. */
const OUTLINES = {
  cue: { color: "#ff9d2e", dash: [] },
  truth: { color: "#ffffff", dash: [4, 3] },
};

/** Cells over a picture. Positions are numbers of cells, row by row. */
class Cells {
  constructor(rows, columns, { hover, leave, choose, label }) {
    this.rows = rows;
    this.columns = columns;
    this.canvas = make("canvas", { class: "m3-cells", role: "img", "aria-label": label });
    const cell = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
      const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
      return row >= 0 && row < rows && column >= 0 && column < columns ? row * columns + column : -1;
    };
    this.canvas.addEventListener("pointermove", (event) => hover(cell(event)));
    this.canvas.addEventListener("pointerleave", () => leave());
    this.canvas.addEventListener("click", (event) => choose(cell(event)));
  }

  /** Lay out for a width in CSS pixels; `aspect` is height over width. */
  resize(width, aspect) {
    const ratio = window.devicePixelRatio || 1;
    const [across, down] = [Math.round(width * ratio), Math.round(width * aspect * ratio)];
    if (this.canvas.width === across && this.canvas.height === down) return;
    this.canvas.width = across;
    this.canvas.height = down;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${width * aspect}px`;
  }

  draw({ picture, smooth = true, values, colors, opacity, outlines = [], chosen = -1, hovered = -1 }) {
    const { canvas, rows, columns } = this;
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    const unit = window.devicePixelRatio || 1;
    const across = (column) => Math.round((column * width) / columns);
    const down = (row) => Math.round((row * height) / rows);
    context.globalAlpha = 1;
    context.fillStyle = "#8a8a8a";
    context.fillRect(0, 0, width, height);
    if (!picture && !values) {
      context.fillStyle = "#9a9a9a";
      for (let column = 1; column < columns; column += 1) context.fillRect(across(column), 0, unit, height);
      for (let row = 1; row < rows; row += 1) context.fillRect(0, down(row), width, unit);
    }
    if (picture) {
      context.imageSmoothingEnabled = smooth;
      context.drawImage(picture, 0, 0, width, height);
    }
    if (values) {
      context.globalAlpha = picture ? opacity : 1;
      for (let cell = 0; cell < values.length; cell += 1) {
        const [row, column] = [Math.floor(cell / columns), cell % columns];
        context.fillStyle = colors.color(values[cell]);
        const [left, top] = [across(column), down(row)];
        context.fillRect(left, top, across(column + 1) - left, down(row + 1) - top);
      }
      context.globalAlpha = 1;
    }
    for (const { segments, style } of outlines) {
      const trace = () => {
        context.beginPath();
        for (const [x0, y0, x1, y1] of segments) {
          context.moveTo(x0 * width, y0 * height);
          context.lineTo(x1 * width, y1 * height);
        }
        context.stroke();
      };
      context.setLineDash([]);
      context.strokeStyle = "rgba(0,0,0,0.75)";
      context.lineWidth = 3.5 * unit;
      trace();
      context.setLineDash(style.dash.map((length) => length * unit));
      context.strokeStyle = style.color;
      context.lineWidth = 1.75 * unit;
      trace();
    }
    context.setLineDash([]);
    const frame = (cell, thick) => {
      if (cell < 0) return;
      const [row, column] = [Math.floor(cell / columns), cell % columns];
      const [left, top] = [across(column), down(row)];
      const box = [left, top, across(column + 1) - left, down(row + 1) - top];
      context.strokeStyle = "#000000";
      context.lineWidth = (thick + 2) * unit;
      context.strokeRect(...box);
      context.strokeStyle = "#ffffff";
      context.lineWidth = thick * unit;
      context.strokeRect(...box);
    };
    frame(hovered, 1);
    frame(chosen, 2);
  }
}

/** Horizontal bar of colours with its two ends. */
function colorBar(palette) {
  const [low, high, title] = [make("span"), make("span"), make("span", { class: "m3-bar-title" })];
  const strip = make("div", { class: "m3-strip" });
  strip.style.background = gradient(palette);
  const element = make("div", { class: "m3-bar" }, title, make("div", {}, low, strip, high));
  return {
    element,
    update(colors, text) {
      element.style.visibility = colors ? "visible" : "hidden";
      if (!colors) return;
      low.textContent = number(colors.low);
      high.textContent = number(colors.high);
      title.textContent = text;
    },
  };
}

/** Make an element take the keyboard without the notebook's shortcuts acting as well. */
function takeKeys(element, handle) {
  element.tabIndex = 0;
  element.dataset.lmSuppressShortcuts = "true";
  element.addEventListener("keydown", (event) => {
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (handle(event)) {
      event.preventDefault();
      event.stopPropagation();
    }
  });
}
