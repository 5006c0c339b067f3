// Attention explorer: one token, everything it looks at and everything that looks at it.

const READS = { image: "image", state: "state", patches: "patches" };

function renderAttention({ model, el }) {
  const held = model.get("held");
  const palette = octets(model.get("palette"));
  const link = connect(model);
  const frames = remember(16);
  const rows = remember(64);
  const site = () => held.sites.find((each) => each.name === model.get("site"));
  const isStatistic = () => site().statistics.some((each) => each.name === model.get("show"));
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };

  // --- the token -------------------------------------------------------------------------------
  // A token is named by the words that select it in a run; streams are told by its role.
  const streamOf = (token) => (token.token === "state" ? "state" : "image");
  const gridOf = (stream) => held.streams[stream];
  const cellOf = (token) => {
    if (token.token === "pose") return -1;
    return token.patch_row * gridOf(gridName(streamOf(token))).columns + token.patch_col;
  };
  // An image stream without its pose token ("patches") has the same places.
  const gridName = (stream) => {
    if (stream === "state") return "state";
    return [site().queries, site().keys].find((name) => name !== "state") || "image";
  };
  const tokenAt = (stream, cell) => {
    const { columns } = gridOf(stream);
    const place = { patch_row: Math.floor(cell / columns), patch_col: cell % columns };
    return { token: stream === "state" ? "state" : "patch", ...place };
  };
  const indexOf = (token, stream) =>
    token.token === "pose" ? 0 : cellOf(token) + (gridOf(stream).pose ? 1 : 0);
  const same = (a, b) =>
    a && b && a.token === b.token && a.patch_row === b.patch_row && a.patch_col === b.patch_col;
  const words = (token) =>
    token.token === "pose"
      ? "the pose token"
      : `${token.token === "state" ? "state token" : "patch"} (row ${token.patch_row}, column ${token.patch_col})`;
  let hovered = null;
  const shownToken = () => (model.get("pinned") ? model.get("token") : hovered || model.get("token"));

  // --- controls --------------------------------------------------------------------------------
  const frameSlider = slider(
    "Frame", held.frames.length, (at) => String(held.frames[at]),
    (at) => set({ frame: held.frames[at] }),
  );
  const siteMenu = menu(
    "Site", held.sites.map((each) => [each.name, each.name]), model.get("site"), changeSite,
  );
  const layerMenu = menu("Layer", [], "", (value) => set({ layer: Number(value) }));
  const headMenu = menu("Head", [], "", (value) =>
    set({ head: value === "mean" ? "mean" : Number(value) }));
  const showMenu = menu("Show", [], "", (value) => set({ show: value }));
  const scaleMenu = menu(
    "Scale", [["linear", "linear"], ["logarithmic", "logarithmic"]], model.get("scale"),
    (value) => set({ scale: value }),
  );
  const opacity = slider("Opacity", 21, (at) => `${5 * at} %`, (at) => set({ opacity: at / 20 }));
  const outlineBox = (name, text) =>
    checkbox(text, model.get("outlines").includes(name), (on) => {
      const others = model.get("outlines").filter((each) => each !== name);
      set({ outlines: on ? [...others, name] : others });
    }, `m3-${name}`);
  const headsBox = checkbox("all heads", model.get("all_heads"), (on) => set({ all_heads: on }));
  const cueBox = outlineBox("cue", `motion cue > ${held.cue_threshold}`);
  const truthBox = outlineBox("truth", "true motion");

  const title = make("h3", {}, "Attention explorer");
  const reading = make("p", { class: "m3-reading" });
  const status = make("p", { class: "m3-status", role: "status", "aria-live": "polite" });
  const origin = make("p", { class: "m3-note" });
  const figures = make("div", { class: "m3-runs" });
  const root = make(
    "div", { class: "m3-explorer m3-attention", "aria-label": "Attention explorer", role: "group" },
    make("header", {}, title, reading),
    make("div", { class: "m3-controls" },
      frameSlider.element, siteMenu.element, layerMenu.element, headMenu.element,
      showMenu.element, scaleMenu.element, opacity.element, headsBox.element,
      ...(held.has_cue ? [cueBox.element] : []),
      ...(held.has_truth ? [truthBox.element] : []),
    ),
    figures, status, origin,
    make("p", { class: "m3-keys" },
      key("←"), key("→"), " frame ", key("↑"), key("↓"), " layer ", key("["), key("]"), " head ",
      key("shift"), "+", key("arrows"), " token ", key("P"), " pose token ",
      "— hover to look, click to hold, ", key("esc"), " to let go"),
  );
  el.append(root);
  const unfollow = ownControls(model, root);

  function key(text) {
    return make("kbd", {}, text);
  }

  function changeSite(name) {
    const next = held.sites.find((each) => each.name === name);
    const near = (value, known, otherwise) => (known.includes(value) ? value : otherwise);
    const streams = [next.queries, next.keys];
    const token = model.get("token");
    const belongs =
      streams.includes(streamOf(token)) ||
      (token.token === "patch" && streams.includes("patches"));
    const first = { token: next.queries === "state" ? "state" : "patch", patch_row: 0, patch_col: 0 };
    const names = [...(next.rows ? Object.keys(held.quantities) : []),
      ...next.statistics.map((each) => each.name)];
    hovered = null;
    set({
      site: name,
      layer: near(model.get("layer"), next.layers, next.layers[0]),
      head: near(model.get("head"), next.heads, next.heads[0]),
      show: near(model.get("show"), names, names[0]),
      token: belongs ? token : first,
    });
  }

  // --- pictures --------------------------------------------------------------------------------
  // Per run two pictures: of the queries' stream and of the keys'.
  let pictures = [];
  let built = "";

  function build() {
    const { queries, keys, heads } = site();
    const signature = `${queries} ${keys} ${heads}`;
    if (signature === built) return;
    built = signature;
    pictures = [];
    figures.replaceChildren(
      ...held.runs.map((name, run) => {
        const both = ["query", "key"].map((side) => picture(run, side));
        pictures.push(...both);
        const heading = held.runs.length > 1 ? [make("h4", {}, name)] : [];
        return make("section", { class: "m3-run" }, ...heading,
          make("div", { class: "m3-pair" }, ...both.map((each) => each.element)));
      }),
    );
  }

  function picture(run, side) {
    const self = site().queries === site().keys;
    const stream = side === "query" ? site().queries : site().keys;
    const { rows: down, columns, pose } = gridOf(stream);
    const caption = make("figcaption");
    const cells = new Cells(down, columns, {
      label: `${held.runs[run]}: ${READS[stream]} tokens as ${side === "query" ? "queries" : "keys"}`,
      hover: (cell) => hover(cell < 0 ? null : tokenAt(stream, cell)),
      leave: () => hover(null),
      choose: (cell) => cell >= 0 && choose(tokenAt(stream, cell)),
    });
    cells.canvas.dataset.run = run;
    cells.canvas.dataset.side = side;
    const chip = make("button", {
      class: "m3-pose", type: "button", title: "Hold the pose token",
      onclick: () => choose({ token: "pose", patch_row: -1, patch_col: -1 }),
      onpointerenter: () => hover({ token: "pose", patch_row: -1, patch_col: -1 }),
      onpointerleave: () => hover(null),
    });
    const swatch = make("i");
    const chipText = make("span", {}, "pose");
    chip.append(swatch, chipText);
    const bar = colorBar(palette);
    const heads = smallMultiples(down, columns);
    const element = make("figure", {}, caption, cells.canvas,
      make("div", { class: "m3-below" }, ...(pose ? [chip] : []), bar.element), heads.element);
    return { run, side, self, stream, pose, caption, cells, chip, swatch, chipText, bar, heads, element, values: null };
  }

  /** All heads of the layer in one scale; a click chooses one, another click lets it go. */
  function smallMultiples(down, columns) {
    const bar = colorBar(palette);
    const panels = site().heads.map((head, at) => ({ head, at })).filter(({ head }) => head !== "mean")
      .map((panel) => {
        const label = `head ${panel.head}`;
        // One pixel per token, which the page enlarges: there are many, and they follow the pointer.
        const canvas = make("canvas", { width: columns, height: down });
        const tile = make("span", {}, canvas);
        const toggle = () => {
          const again = model.get("head") === panel.head && site().heads.includes("mean");
          set({ head: again ? "mean" : panel.head });
        };
        const button = make("button", { class: "m3-head", type: "button", onclick: toggle }, tile, label);
        return { ...panel, canvas, tile, button };
      });
    const row = make("div", { class: "m3-heads" }, ...panels.map((panel) => panel.button));
    return { element: make("div", {}, row, bar.element), bar, panels };
  }

  // --- what is under the pointer ---------------------------------------------------------------
  function hover(token) {
    if (same(token, hovered) || (!token && !hovered)) return;
    hovered = token;
    if (!model.get("pinned") && token) refresh();
    else paint();
  }

  function choose(token) {
    root.focus({ preventScroll: true });
    const again = model.get("pinned") && same(token, model.get("token"));
    set({ token, pinned: !again });
  }

  // --- asking ----------------------------------------------------------------------------------
  async function asked(memory, request) {
    const name = JSON.stringify(request);
    let found = memory.get(name);
    if (!found) {
      found = await link.ask(request);
      memory.set(name, found);
    }
    return found;
  }

  async function loadFrame(frame) {
    const name = `drawn ${frame}`;
    let found = frames.get(name);
    if (found) return found;
    const { content, buffers } = await link.ask({ ask: "frame", frame });
    const { height, width } = content;
    const take = (at) => (at === null ? null : buffers[at]);
    const image = take(content.image);
    const picture = image && backdrop(octets(image), width, height);
    found = {
      picture,
      address: picture && picture.toDataURL(),
      truth: content.truth === null ? [] : borders(octets(take(content.truth)), height, width),
      cues: content.cues.map((at) => {
        if (at === null) return [];
        const { rows: down, columns } = gridOf("image" in held.streams ? "image" : "patches");
        const score = floats(take(at));
        return borders(score.map((value) => value > held.cue_threshold), down, columns);
      }),
    };
    frames.set(name, found);
    return found;
  }

  function roles(token) {
    // Which sides of the site the token may stand on.
    const stream = streamOf(token);
    const fits = (name) => name === stream || (name === "patches" && token.token === "patch");
    return ["query", "key"].filter((side) => fits(side === "query" ? site().queries : site().keys));
  }

  let current = { token: null, scene: null, rows: {}, statistic: null, message: "" };

  const refresh = latest(async () => {
    const where = {
      site: model.get("site"), frame: model.get("frame"), layer: model.get("layer"), heads: site().heads,
    };
    // Rows of all heads come together: choosing another one asks for nothing.
    const byHead = (buffer) => {
      const values = floats(buffer);
      const count = values.length / where.heads.length;
      return where.heads.map((_, at) => values.subarray(at * count, (at + 1) * count));
    };
    const token = shownToken();
    const next = { token, scene: null, rows: {}, statistic: null, message: "" };
    try {
      next.scene = await loadFrame(where.frame);
      if (isStatistic()) {
        const request = { ask: "statistic", ...where, show: model.get("show") };
        const { content, buffers } = await asked(rows, request);
        next.statistic = { side: content.side, values: buffers.map(byHead) };
      }
      if (site().rows) {
        const show = isStatistic() ? "weights" : model.get("show");
        // Both sides are asked for at once: one way to the kernel and back, not two.
        await Promise.all(roles(token).map(async (side) => {
          const stream = side === "query" ? site().queries : site().keys;
          const request = { ask: "row", ...where, show, side, token: indexOf(token, stream) };
          const { buffers } = await asked(rows, request);
          next.rows[side] = buffers.map(byHead);
        }));
      }
    } catch (error) {
      next.message = error.message;
    }
    current = next;
    arrange();
    paint();
    root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
  });

  // --- drawing ---------------------------------------------------------------------------------
  /** Decide what each picture shows: a statistic, where a query looks, or who looks at a key. */
  function arrange() {
    const { statistic, rows: found, token } = current;
    const self = site().queries === site().keys;
    const quantity = held.quantities[isStatistic() ? "weights" : model.get("show")];
    const stream = (side) => READS[side === "query" ? site().queries : site().keys];
    const picked = token ? words(token) : "";
    const head = site().heads.indexOf(model.get("head"));
    for (const each of pictures) {
      each.values = null;
      each.byHead = null;
      each.title = `${stream(each.side)} tokens as ${each.side === "query" ? "queries" : "keys"}`;
      each.label = quantity;
      each.marks = roles(token).includes(each.side);
      if (statistic && statistic.side === each.side) {
        const item = site().statistics.find((one) => one.name === model.get("show"));
        each.byHead = statistic.values[each.run];
        each.values = each.byHead[head];
        each.title = `${each.side === "query" ? "queries" : "keys"}: ${item.label}`;
        each.label = item.label;
        each.kind = "statistic";
        continue;
      }
      each.kind = "row";
      // In self-attention the left picture shows the token as a query, the right one as a key.
      // Otherwise a row lies over the other stream. Beside a statistic, its row lies on the other side.
      const role = self && !statistic ? each.side : each.side === "query" ? "key" : "query";
      if (self && statistic && role !== statistic.side) continue;
      if (!found[role]) continue;
      each.byHead = found[role][each.run];
      each.values = each.byHead[head];
      each.title = role === "query" ? `${picked} looks at` : `${picked} is looked at by`;
      each.marks = self;
    }
    for (const side of ["query", "key"]) {
      const group = pictures.filter((each) => each.side === side && each.values);
      if (!group.length) continue;
      const tokens = (values) => values.subarray(group[0].pose ? 1 : 0);
      const log = model.get("scale") === "logarithmic" && group[0].kind === "row" &&
        model.get("show") !== "logits";
      const zero = group[0].kind === "row" && (isStatistic() || model.get("show") === "weights");
      const scaleOf = (shown) => {
        const places = shown.map(tokens);
        const [low, high] = group[0].kind === "statistic" ? range(places, 0.02) : range(places);
        return scale(palette, zero ? 0 : low, high, log);
      };
      const colors = scaleOf(group.map((each) => each.values));
      const of = (each) => each.heads.panels.map(({ at }) => each.byHead[at]);
      const headColors = model.get("all_heads") ? scaleOf(group.flatMap(of)) : null;
      for (const each of group) Object.assign(each, { colors, headColors });
    }
  }

  function paint() {
    const { scene } = current;
    const width = Math.max(140, Math.min(420, Math.floor((figures.clientWidth || 860) / 2) - 14));
    for (const each of pictures) {
      const isState = each.stream === "state";
      const { rows: down, columns } = gridOf(each.stream);
      const aspect = isState ? down / columns : held.image.height / held.image.width;
      // The state's lattice is as tall as the frame beside it, where that is possible.
      const tall = held.image.height / held.image.width;
      const across = isState && site().queries !== site().keys ? Math.min(width, (width * tall) / aspect) : width;
      each.cells.resize(Math.round(across), aspect);
      const outlines = [];
      if (scene && !isState) {
        const chosen = model.get("outlines");
        if (chosen.includes("truth")) outlines.push({ segments: scene.truth, style: OUTLINES.truth });
        if (chosen.includes("cue")) outlines.push({ segments: scene.cues[each.run], style: OUTLINES.cue });
      }
      const on = (token) =>
        token && (streamOf(token) === "state") === isState && token.token !== "pose" ? cellOf(token) : -1;
      each.cells.draw({
        picture: scene && !isState ? scene.picture : null,
        values: each.values && each.values.subarray(each.pose ? 1 : 0),
        colors: each.colors,
        opacity: model.get("opacity"),
        outlines,
        chosen: each.marks ? on(current.token) : -1,
        hovered: on(hovered),
      });
      each.caption.textContent = each.title || "";
      each.bar.update(each.values && each.colors, each.label);
      each.swatch.style.background =
        each.values && each.pose ? each.colors.color(each.values[0]) : "transparent";
      each.chipText.textContent =
        each.values && each.pose ? `pose ${number(each.values[0])}` : "pose";
      each.chip.classList.toggle("m3-held", each.marks && current.token?.token === "pose");
      paintHeads(each, scene && !isState && scene.address, Math.round(across), aspect);
    }
    describe();
  }

  function paintHeads({ heads, byHead, headColors, stream, pose, label }, beneath, across, aspect) {
    const { panels } = heads;
    const hidden = !byHead || !headColors || panels.length < 2;
    heads.element.hidden = hidden;
    if (hidden) return;
    const { rows: down, columns } = gridOf(stream);
    const width = Math.floor(across / Math.min(panels.length, 6)) - 5;
    for (const { at, head, canvas, tile, button } of panels) {
      tile.style.backgroundImage = beneath ? `url(${beneath})` : "none";
      Object.assign(canvas.style, { width: `${width}px`, height: `${width * aspect}px` });
      canvas.style.opacity = beneath ? model.get("opacity") : 1;
      heat(byHead[at].subarray(pose ? 1 : 0), columns, down, headColors, palette, canvas);
      button.setAttribute("aria-pressed", String(head === model.get("head")));
    }
    heads.bar.update(headColors, `${label}, all heads`);
  }

  function describe() {
    const { token, message } = current;
    const one = site();
    reading.textContent =
      `${one.name}, layer ${model.get("layer")}: ${READS[one.queries]} queries read ${READS[one.keys]} keys · ` +
      `${model.get("head") === "mean" ? `mean of ${one.head_count} heads` : `head ${model.get("head")}`} · ` +
      `frame ${model.get("frame")}`;
    if (message) {
      status.textContent = message;
      status.classList.add("m3-error");
      return;
    }
    status.classList.remove("m3-error");
    const parts = token ? [`${model.get("pinned") ? "Held" : "Shown"}: ${words(token)}.`] : [];
    const target = hovered || token;
    if (target) {
      const values = [];
      for (const each of pictures) {
        if (!each.values) continue;
        const isState = each.stream === "state";
        if ((streamOf(target) === "state") !== isState) continue;
        if (target.token === "pose" && !each.pose) continue;
        const value = each.values[indexOf(target, each.stream)];
        const who = held.runs.length > 1 ? `${held.runs[each.run]}, ` : "";
        values.push(`${who}${each.title}: ${number(value)}`);
      }
      if (values.length) parts.push(`At ${words(target)} — ${values.join("; ")}.`);
    }
    status.textContent = parts.join(" ");
    const origins = one.origins.length > 1 && new Set(one.origins).size > 1
      ? one.origins.map((text, run) => `${held.runs[run]}: ${text}`)
      : one.origins.slice(0, 1);
    origin.textContent = [...origins, ...held.notes].join(" ");
  }

  // --- following the model ---------------------------------------------------------------------
  function controls() {
    const one = site();
    frameSlider.update(held.frames.indexOf(model.get("frame")));
    siteMenu.update(model.get("site"));
    layerMenu.update(model.get("layer"), one.layers.map((each) => [each, String(each)]));
    headMenu.update(model.get("head"), one.heads.map((each) => [each, String(each)]));
    const quantities = one.rows ? Object.entries(held.quantities) : [];
    showMenu.update(model.get("show"), [...quantities, ...one.statistics.map((each) => [each.name, each.label])]);
    scaleMenu.update(model.get("scale"));
    opacity.update(Math.round(20 * model.get("opacity")));
    headsBox.input.checked = model.get("all_heads");
    cueBox.input.checked = model.get("outlines").includes("cue");
    truthBox.input.checked = model.get("outlines").includes("truth");
  }

  let planned = false;
  function follow() {
    // Several values may change together: draw once.
    if (planned) return;
    planned = true;
    queueMicrotask(() => {
      planned = false;
      build();
      controls();
      refresh();
    });
  }

  const step = (name, known, by) => {
    const at = known.indexOf(model.get(name)) + by;
    if (at >= 0 && at < known.length) set({ [name]: known[at] });
  };
  takeKeys(root, (event) => {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const move = moves[event.key];
    if (move && event.shiftKey) {
      const token = model.get("token");
      if (token.token === "pose") {
        set({ token: { token: "patch", patch_row: 0, patch_col: 0 }, pinned: true });
        return true;
      }
      const { rows: down, columns } = gridOf(gridName(streamOf(token)));
      const row = Math.max(0, Math.min(down - 1, token.patch_row + move[0]));
      const column = Math.max(0, Math.min(columns - 1, token.patch_col + move[1]));
      set({ token: { token: token.token, patch_row: row, patch_col: column }, pinned: true });
      return true;
    }
    if (move && move[1]) step("frame", held.frames, move[1]);
    else if (move) step("layer", site().layers, -move[0]);
    else if (event.key === "[") step("head", site().heads, -1);
    else if (event.key === "]") step("head", site().heads, 1);
    else if (event.key === "Escape") set({ pinned: false });
    else if (event.key.toLowerCase() === "p") {
      if (![site().queries, site().keys].includes("image")) return true;
      set({ token: { token: "pose", patch_row: -1, patch_col: -1 }, pinned: true });
    } else return false;
    return true;
  });

  const names = ["frame", "site", "layer", "head", "show", "scale", "token", "pinned", "opacity", "outlines", "all_heads"];
  for (const name of names) model.on(`change:${name}`, follow);
  const watcher = new ResizeObserver(() => paint());
  watcher.observe(figures);
  follow();
  return () => {
    for (const name of names) model.off(`change:${name}`, follow);
    watcher.disconnect();
    unfollow();
    link.close();
  };
}
