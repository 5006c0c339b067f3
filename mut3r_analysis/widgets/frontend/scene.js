// Scene view: points and cameras, drawn with WebGL and nothing else.

const VERTEX = `
attribute vec3 position;
attribute vec3 color;
uniform mat4 view;
uniform float size;
varying vec3 shade;
void main() {
  gl_Position = view * vec4(position, 1.0);
  gl_PointSize = size;
  shade = color;
}`;
const FRAGMENT = `
precision mediump float;
varying vec3 shade;
uniform float round;
void main() {
  vec2 at = 2.0 * gl_PointCoord - 1.0;
  if (round > 0.5 && dot(at, at) > 1.0) discard;
  gl_FragColor = vec4(shade, 1.0);
}`;

/** Column-major product of two 4 x 4 matrices. */
function times(a, b) {
  const found = new Float32Array(16);
  for (let column = 0; column < 4; column += 1) {
    for (let row = 0; row < 4; row += 1) {
      let sum = 0;
      for (let at = 0; at < 4; at += 1) sum += a[at * 4 + row] * b[column * 4 + at];
      found[column * 4 + row] = sum;
    }
  }
  return found;
}

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  return made;
}

// While the scene turns, a picture should take about so long; points are left out until it does.
const TURN_MILLISECONDS = 40;
const FIRST_TURN_POINTS = 200_000;
// WebGL steps over at most 255 bytes from one position of 12 to the next.
const MOST_LEFT_OUT = 21;

function renderScene({ model, el }) {
  const held = model.get("held");
  const link = connect(model);
  const count = held.frames.length;
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  let closed = false;

  // --- controls --------------------------------------------------------------------------------
  const frameSlider = slider(
    "Frame", count, (at) => String(held.frames[at]), (at) => set({ frame: held.frames[at] }),
  );
  const texts = { image: "image", error: "depth error (unaligned, 0–1)", motion: "motion score (0–1)", source: "source" };
  const colorMenu = menu(
    "Colour", held.colorings.map((each) => [each, texts[each]]), model.get("coloring"),
    (value) => set({ coloring: value }),
  );
  const sizeSlider = slider("Point size", 11, (at) => `${1 + at / 2} px`, (at) => set({ point_size: 1 + at / 2 }));
  const alone = checkbox("this frame only", model.get("alone"), (on) => set({ alone: on }));
  const boxes = held.names.map((name, at) => {
    const box = checkbox(name, model.get("visible").includes(name), (on) => {
      const others = model.get("visible").filter((each) => each !== name);
      set({ visible: on ? [...others, name] : others });
    }, "m3-source");
    box.element.querySelector("i").style.borderTopColor = `rgb(${held.source_colors[at]})`;
    return box;
  });
  const canvas = make("canvas", { class: "m3-scene-canvas", role: "img", "aria-label": "Points and cameras in space" });
  const status = make("p", { class: "m3-status", role: "status", "aria-live": "polite" });
  const kbd = (text) => make("kbd", {}, text);
  const root = make(
    "div", { class: "m3-explorer m3-scene", role: "group", "aria-label": "Scene view" },
    make("header", {}, make("h3", {}, "Scene view")),
    make("div", { class: "m3-controls" }, frameSlider.element, colorMenu.element, sizeSlider.element,
      alone.element, ...boxes.map((each) => each.element)),
    canvas, status,
    make("p", { class: "m3-note" }, held.notes.join(" ")),
    make("p", { class: "m3-keys" }, "Drag to turn, ", kbd("shift"), " and drag to move, scroll to come closer. ",
      kbd("←"), kbd("→"), " frame ", kbd("W"), kbd("A"), kbd("S"), kbd("D"), " turn ", kbd("+"), kbd("−"),
      " closer, farther ", kbd("0"), " start again"),
  );
  el.append(root);
  const unfollow = ownControls(model, root);

  // --- drawing ---------------------------------------------------------------------------------
  const gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) {
    status.textContent = "This browser has no WebGL; figure() and export() show the scene without it.";
    status.classList.add("m3-error");
    return () => link.close();
  }
  const shader = program(gl);
  gl.useProgram(shader);
  const place = {
    position: gl.getAttribLocation(shader, "position"),
    color: gl.getAttribLocation(shader, "color"),
    view: gl.getUniformLocation(shader, "view"),
    size: gl.getUniformLocation(shader, "size"),
    round: gl.getUniformLocation(shader, "round"),
  };
  gl.enableVertexAttribArray(place.position);
  gl.enableVertexAttribArray(place.color);
  gl.enable(gl.DEPTH_TEST);
  // Per frame and cloud one pair of buffers: scrubbing only chooses which are drawn.
  const points = held.frames.map(() => null);
  const cameras = held.names.map(() => null);
  const eye = { yaw: 0.5, pitch: 0.35, distance: 4, target: [0, 0, 1], home: null };

  function buffer(data, target = gl.createBuffer()) {
    gl.bindBuffer(gl.ARRAY_BUFFER, target);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    return target;
  }

  function matrix() {
    const aspect = canvas.width / canvas.height;
    const [near, far] = [eye.distance / 100, eye.distance * 100];
    const f = 1 / Math.tan(0.4);
    const lens = new Float32Array([
      f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1, 0, 0, (2 * far * near) / (near - far), 0,
    ]);
    const [cy, sy, cp, sp] = [Math.cos(eye.yaw), Math.sin(eye.yaw), Math.cos(eye.pitch), Math.sin(eye.pitch)];
    // The world has y down and z forward; the picture has y up and looks along -z.
    const right = [cy, 0, sy];
    const up = [sp * sy, -cp, -sp * cy];
    const back = [cp * sy, sp, -cp * cy];
    const flip = [right, up, back];
    const from = flip.map((axis) => -axis.reduce((sum, value, at) => sum + value * eye.target[at], 0));
    const turn = new Float32Array([
      right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
      from[0], from[1], from[2] - eye.distance, 1,
    ]);
    eye.axes = { right, up };
    return times(lens, turn);
  }

  // At rest every point is drawn; on the way only every so-many-th.
  let turning = false;
  let step = 1;
  // Odd, so that what is left out makes no stripes where a row of pixels has an even number.
  const thinned = (wish) => Math.max(1, Math.min(MOST_LEFT_OUT, Math.ceil(wish) | 1));

  function paint() {
    if (closed) return;
    const began = performance.now();
    const ratio = window.devicePixelRatio || 1;
    const wide = Math.max(240, canvas.clientWidth);
    const [across, down] = [Math.round(wide * ratio), Math.round(wide * 0.56 * ratio)];
    if (canvas.width !== across || canvas.height !== down) {
      canvas.width = across;
      canvas.height = down;
    }
    gl.viewport(0, 0, across, down);
    gl.clearColor(1, 1, 1, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(place.view, false, matrix());
    gl.uniform1f(place.size, model.get("point_size") * ratio);
    gl.uniform1f(place.round, 1);
    const now = held.frames.indexOf(model.get("frame"));
    let shown = 0;
    const every = turning ? step : 1;
    held.names.forEach((name, cloud) => {
      if (!model.get("visible").includes(name)) return;
      for (let at = model.get("alone") ? now : 0; at <= now; at += 1) {
        const one = points[at] && points[at][cloud];
        if (!one || !one.count || !one.color) continue;
        gl.bindBuffer(gl.ARRAY_BUFFER, one.position);
        gl.vertexAttribPointer(place.position, 3, gl.FLOAT, false, 12 * every, 0);
        gl.bindBuffer(gl.ARRAY_BUFFER, one.color);
        gl.vertexAttribPointer(place.color, 3, gl.UNSIGNED_BYTE, true, 3 * every, 0);
        gl.drawArrays(gl.POINTS, 0, Math.floor((one.count - 1) / every) + 1);
        shown += one.count;
      }
      const lines = cameras[cloud];
      if (!lines) return;
      gl.uniform1f(place.round, 0);
      gl.disableVertexAttribArray(place.color);
      gl.bindBuffer(gl.ARRAY_BUFFER, lines.position);
      gl.vertexAttribPointer(place.position, 3, gl.FLOAT, false, 0, 0);
      const color = held.source_colors[cloud].map((value) => value / 255);
      for (let at = 0; at <= now; at += 1) {
        // The camera of this frame is black, those before it have their run's colour.
        gl.vertexAttrib3fv(place.color, at === now ? [0, 0, 0] : color);
        gl.drawArrays(gl.LINES, at * 18, 18);
      }
      gl.enableVertexAttribArray(place.color);
      gl.uniform1f(place.round, 1);
    });
    if (turning) {
      // Reading a pixel waits until all are drawn.
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
      const share = (performance.now() - began) / TURN_MILLISECONDS;
      step = thinned(every * share);
    } else step = thinned(shown / FIRST_TURN_POINTS);
    root.dataset.points = String(shown);
    const loaded = points.filter(Boolean).length;
    status.textContent =
      `${shown.toLocaleString("en")} points, ${model.get("alone") ? "frame" : "frames up to"} ${model.get("frame")}` +
      (loaded < count ? ` — ${loaded} of ${count} frames loaded` : "");
  }

  // --- loading ---------------------------------------------------------------------------------
  async function load() {
    const { buffers: edges } = await link.ask({ ask: "cameras" });
    edges.forEach((each, cloud) => {
      const data = floats(each);
      if (data.length) cameras[cloud] = { position: buffer(data), ends: data };
    });
    for (let at = 0; at < count && !closed; at += 1) {
      const [frame, coloring] = [held.frames[at], model.get("coloring")];
      // Asked for at once: one way to the kernel and back, not two.
      const [{ buffers }, { buffers: colors }] = await Promise.all([
        link.ask({ ask: "points", frame }), link.ask({ ask: "colors", frame, coloring }),
      ]);
      const places = buffers.map(floats);
      points[at] = places.map((data) => ({ position: buffer(data), count: data.length / 3, color: null }));
      upload(at, colors);
      if (coloring !== model.get("coloring")) await paintColors(at, model.get("coloring"));
      if (!eye.home) aim(places);
      soon();
    }
    root.dataset.loaded = "true";
  }

  /** Look at the first points and all cameras, from far enough to see most of them. */
  function aim(places) {
    const every = (data, which) => data.filter((_, at) => at % 3 === which);
    const bounds = [0, 1, 2].map((which) => {
      const [low, high] = range([every(places[0], which)], 0.05);
      const path = cameras[0] ? every(cameras[0].ends, which) : [];
      return path.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [low, high]);
    });
    eye.target = bounds.map(([low, high]) => (low + high) / 2);
    eye.distance = 1.3 * Math.max(...bounds.map(([low, high]) => high - low), 0.1);
    eye.home = { ...eye };
  }

  async function paintColors(at, coloring) {
    const { buffers } = await link.ask({ ask: "colors", frame: held.frames[at], coloring });
    upload(at, buffers);
  }

  function upload(at, colors) {
    colors.forEach((each, cloud) => {
      const one = points[at] && points[at][cloud];
      if (one) one.color = buffer(octets(each), one.color || gl.createBuffer());
    });
  }

  const recolor = latest(async () => {
    const coloring = model.get("coloring");
    for (let at = 0; at < count && coloring === model.get("coloring") && !closed; at += 1) {
      if (points[at]) await paintColors(at, coloring);
    }
    controls();
    paint();
    root.dataset.coloring = coloring;
  });

  // --- moving ----------------------------------------------------------------------------------
  let planned = false;
  function soon() {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      paint();
    });
  }
  let rest = null;
  function move() {
    turning = true;
    clearTimeout(rest);
    rest = setTimeout(() => {
      turning = false;
      soon();
    }, 200);
    soon();
  }
  const turn = (yaw, pitch) => {
    eye.yaw += yaw;
    eye.pitch = Math.max(-1.5, Math.min(1.5, eye.pitch + pitch));
    move();
  };
  const zoom = (factor) => {
    eye.distance *= factor;
    move();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    root.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    if (event.shiftKey || event.buttons === 2) {
      const step = eye.distance / canvas.clientHeight;
      eye.target = eye.target.map((value, at) =>
        value - step * (event.movementX * eye.axes.right[at] - event.movementY * eye.axes.up[at]));
      move();
    } else turn(event.movementX * 0.008, event.movementY * 0.008);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(event.deltaY * 0.001));
  }, { passive: false });
  takeKeys(root, (event) => {
    const at = held.frames.indexOf(model.get("frame"));
    const keys = {
      ArrowLeft: () => set({ frame: held.frames[Math.max(0, at - 1)] }),
      ArrowRight: () => set({ frame: held.frames[Math.min(count - 1, at + 1)] }),
      a: () => turn(-0.1, 0),
      d: () => turn(0.1, 0),
      w: () => turn(0, 0.1),
      s: () => turn(0, -0.1),
      "+": () => zoom(0.9),
      "-": () => zoom(1 / 0.9),
      0: () => {
        Object.assign(eye, eye.home || {});
        soon();
      },
    };
    const act = keys[event.key];
    if (act) act();
    return Boolean(act);
  });

  function controls() {
    frameSlider.update(held.frames.indexOf(model.get("frame")));
    colorMenu.update(model.get("coloring"));
    sizeSlider.update(Math.round(2 * (model.get("point_size") - 1)));
    alone.input.checked = model.get("alone");
    boxes.forEach((box, at) => { box.input.checked = model.get("visible").includes(held.names[at]); });
  }
  const follow = () => {
    controls();
    soon();
  };
  const names = ["frame", "alone", "visible", "point_size"];
  for (const name of names) model.on(`change:${name}`, follow);
  model.on("change:coloring", recolor);
  const watcher = new ResizeObserver(soon);
  watcher.observe(canvas);
  controls();
  load().catch((error) => {
    status.textContent = error.message;
    status.classList.add("m3-error");
  });
  return () => {
    closed = true;
    clearTimeout(rest);
    for (const name of names) model.off(`change:${name}`, follow);
    model.off("change:coloring", recolor);
    watcher.disconnect();
    unfollow();
    link.close();
    // A browser allows few contexts; give this one back.
    gl.getExtension("WEBGL_lose_context")?.loseContext();
  };
}
