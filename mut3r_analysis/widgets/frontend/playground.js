// Gate playground: a short sequence run again at every setting, beside the plain backbone.

function renderPlayground({ model, el }) {
  const held = model.get("held");
  const palette = octets(model.get("palette"));
  const cuePalette = octets(model.get("cue_palette"));
  const differencePalette = octets(model.get("difference_palette"));
  const link = connect(model);
  const { rows, columns } = held.grid;
  const { height, width } = held.image;
  const sites = Object.keys(held.realisations);
  const settings = ["reading", "beta", "first_layer", "last_layer", ...sites];
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const named = (label, name, known) =>
    menu(label, known.map((each) => [each, each]), model.get(name), (value) => set({ [name]: value }));
  const frameSlider = slider("Frame", held.frames.length, (at) => String(held.frames[at]),
    (at) => set({ frame: held.frames[at] }));
  const beta = slider("β", 33, (at) => String(at / 4), (at) => set({ beta: at / 4 }));
  const first = slider("from layer", held.depth + 1, String, (at) => set({ first_layer: at }));
  const last = slider("to layer (excluded)", held.depth + 1, String, (at) => set({ last_layer: at }));
  const reading = named("Cue reads", "reading", held.readings);
  const menus = sites.map((site) => named(site, site, held.realisations[site]));
  const verdict = make("p", { class: "m3-verdict", role: "status", "aria-live": "polite" });
  const table = make("table", { class: "m3-scores" });
  const figures = make("div", { class: "m3-pair" });
  const root = make(
    "div", { class: "m3-explorer m3-playground", role: "group", "aria-label": "Gate playground" },
    make("header", {}, make("h3", {}, "Gate playground"), make("p", { class: "m3-reading" }, held.note)),
    make("div", { class: "m3-controls" }, reading.element, ...menus.map((each) => each.element)),
    make("div", { class: "m3-controls" }, beta.element, first.element, last.element, frameSlider.element),
    verdict, figures, table,
    make("p", { class: "m3-keys" }, make("kbd", {}, "←"), make("kbd", {}, "→"),
      " frame — dashed: true motion, orange: motion score above one half"),
  );
  el.append(root);
  const unfollow = ownControls(model, root);

  const depthBar = colorBar(palette);
  const cueBar = colorBar(cuePalette);
  const changeBar = colorBar(differencePalette);
  // One scale for all frames and settings.
  const changeColors = scale(differencePalette, -held.most_change, held.most_change);
  const picture = (title, bar) => {
    const cells = new Cells(rows, columns, { label: title, hover() {}, leave() {}, choose() {} });
    const element = make("figure", {}, make("figcaption", {}, title), cells.canvas, ...(bar ? [bar.element] : []));
    return { cells, element };
  };
  const shown = {
    frame: picture("Frame"), before: picture("Depth, plain", depthBar), after: picture("Depth, gated"),
    change: picture("Relative change of depth", changeBar), cue: picture("Motion score", cueBar),
  };
  figures.append(...Object.values(shown).map((each) => each.element));
  let current = null;

  const refresh = latest(async () => {
    controls();
    verdict.textContent = "Running …";
    verdict.classList.remove("m3-error");
    try {
      const asked = Object.fromEntries(settings.map((name) => [name, model.get(name)]));
      const { content, buffers } = await link.ask({ ask: "setting", ...asked, frame: model.get("frame") });
      const depths = content.depths.map((at) => floats(buffers[at]));
      const colors = scale(palette, ...range(depths, 0.02));
      const take = (at) => (at === null ? null : buffers[at]);
      const cue = take(content.cue) && floats(take(content.cue));
      const truth = take(content.truth) && octets(take(content.truth));
      current = { colors, cue, depths: depths.map((each) => heat(each, width, height, colors, palette)),
        photograph: photograph(octets(take(content.image)), width, height),
        change: heat(floats(take(content.change)), width, height, changeColors, differencePalette),
        truth: truth ? borders(truth, height, width) : [],
        region: cue ? borders(cue.map((value) => value > 0.5), rows, columns) : [] };
      verdict.textContent = content.inert
        ? `Inert: ${content.inert}. The gated backbone gives the plain one's numbers.`
        : `Gated at ${content.layers}.`;
      verdict.classList.toggle("m3-inert", Boolean(content.inert));
      score(content);
      paint();
    } catch (error) {
      verdict.textContent = error.message;
      verdict.classList.add("m3-error");
    }
    root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
  });

  function score({ scores }) {
    const known = Object.entries(scores).filter(([, pair]) => pair.every(Number.isFinite));
    const cells = (tag, texts) => make("tr", {}, ...texts.map((text) => make(tag, {}, text)));
    table.replaceChildren(
      ...(known.length ? [cells("th", ["", "plain", "gated", "change"])]
        : [cells("td", ["No ground truth: there are maps to compare, and no scores."])]),
      ...known.map(([name, [before, after]]) => cells("td", [held.metrics[name], number(before), number(after),
        `${after >= before ? "+" : "−"}${Math.abs((100 * (after - before)) / before).toFixed(1)} %`])));
  }

  function paint() {
    if (!current) return;
    const across = Math.max(120, Math.min(290, Math.floor(((figures.clientWidth || 880) - 32) / 3)));
    for (const each of Object.values(shown)) each.cells.resize(across, height / width);
    const outlines = [{ segments: current.truth, style: OUTLINES.truth }, { segments: current.region, style: OUTLINES.cue }];
    shown.frame.cells.draw({ picture: current.photograph, outlines });
    shown.change.cells.draw({ picture: current.change, smooth: false, outlines });
    changeBar.update(changeColors, "share of the plain depth");
    shown.before.cells.draw({ picture: current.depths[0], smooth: false, outlines });
    shown.after.cells.draw({ picture: current.depths[1], smooth: false, outlines });
    const colors = scale(cuePalette, 0, 1);
    shown.cue.cells.draw({ values: current.cue, colors, opacity: 1, outlines });
    depthBar.update(current.colors, "depth (m)");
    cueBar.update(current.cue && colors, "motion score");
  }

  function controls() {
    frameSlider.update(held.frames.indexOf(model.get("frame")));
    beta.update(Math.round(4 * model.get("beta")));
    first.update(model.get("first_layer"));
    last.update(model.get("last_layer"));
    reading.update(model.get("reading"));
    sites.forEach((site, at) => menus[at].update(model.get(site)));
  }

  takeKeys(root, (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const next = held.frames[held.frames.indexOf(model.get("frame")) + by];
    if (next !== undefined) set({ frame: next });
    return by !== undefined;
  });
  let planned = false;
  const follow = () => {
    if (planned) return;
    planned = true;
    queueMicrotask(() => {
      planned = false;
      refresh();
    });
  };
  const names = [...settings, "frame"];
  for (const name of names) model.on(`change:${name}`, follow);
  const watcher = new ResizeObserver(paint);
  watcher.observe(figures);
  follow();
  return () => {
    for (const name of names) model.off(`change:${name}`, follow);
    watcher.disconnect();
    unfollow();
    link.close();
  };
}
