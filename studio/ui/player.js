// Several videos, one clock. The first one leads; the others are kept within half a frame of it.
const FAR_S = 0.25;

function build(root, data) {
  const find = (name) => root.querySelector(name);
  const player = find(".player"), stage = find(".stage"), both = find(".both"), canvas = find("canvas");
  const play = find(".play"), scrub = find(".scrub"), shown = find("output"), told = find(".told");
  const speed = find(".speed"), view = find(".view"), loop = find(".loop");
  const fps = data.fps, frames = data.frames, stops = new AbortController();
  let playing = false, alive = true, wipe = 0.5, wrapping = false;

  stage.replaceChildren();
  stage.style.setProperty("--columns", Math.min(data.videos.length, 4));
  const videos = data.videos.map(({ url, label }) => {
    const figure = document.createElement("figure"), video = document.createElement("video");
    const caption = document.createElement("figcaption");
    Object.assign(video, { src: url, muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true });
    video.setAttribute("aria-label", label);
    caption.textContent = label;
    video.addEventListener("error", () => { caption.textContent = `${label}: this browser cannot play it`; });
    figure.append(video, caption);
    stage.append(figure);
    return video;
  });
  const [lead, ...others] = videos;
  scrub.max = frames - 1;
  view.disabled = videos.length < 2;

  const frameAt = (seconds) => Math.max(0, Math.min(frames - 1, Math.floor(seconds * fps + 1e-3)));
  // the middle of a frame: its edges may round to the frame before
  const middle = (frame) => (frame + 0.5) / fps;
  const seeked = (video) => video.readyState < 1 || !video.seeking ? Promise.resolve()
    : new Promise((done) => video.addEventListener("seeked", done, { once: true }));

  function go(frame) {
    const at = middle(Math.max(0, Math.min(frames - 1, frame)));
    for (const video of videos) video.currentTime = Math.min(at, Math.max(0, (video.duration || at) - 1e-3));
    draw();
  }
  function pause(exactly = true) {
    playing = false;
    for (const video of videos) video.pause();
    play.textContent = "Play";
    if (exactly) go(frameAt(lead.currentTime));
  }
  async function start() {
    playing = true;
    play.textContent = "Pause";
    if (frameAt(lead.currentTime) >= frames - 1) go(0);
    await Promise.all(videos.map(seeked));
    if (!playing || !alive) return;
    setSpeed();
    await Promise.all(videos.map((video) => video.play().catch(() => pause())));
    tick();
  }
  function setSpeed() { for (const video of videos) video.playbackRate = Number(speed.value); }
  function step(by) {
    const frame = frameAt(lead.currentTime);
    if (playing) pause(false);
    go(frame + by);
  }
  async function tick() {
    if (!alive || !playing || wrapping) return;
    for (const video of others) {
      const drift = video.currentTime - lead.currentTime;
      if (Math.abs(drift) > FAR_S) video.currentTime = lead.currentTime;
      else if (Math.abs(drift) > 0.25 / fps) video.playbackRate = speed.value * (1 - Math.max(-0.3, Math.min(0.3, 4 * drift)));
      else video.playbackRate = Number(speed.value);
    }
    draw();
    // the shortest one ends it, so that every moment that is shown is of all of them
    if (lead.ended || lead.currentTime >= (frames - 0.5) / fps || videos.some((video) => video.ended)) {
      if (!loop.checked) { pause(false); go(frames - 1); return; }
      wrapping = true;
      for (const video of videos) video.pause();
      go(0);
      await Promise.all(videos.map(seeked));
      wrapping = false;
      if (playing) start();
      return;
    }
    requestAnimationFrame(tick);
  }
  function draw() {
    const frame = frameAt(lead.currentTime);
    scrub.value = frame;
    shown.textContent = `frame ${frame + 1} of ${frames}, ${(frame / fps).toFixed(2)} s`;
    if (view.value !== "beside") paint();
  }
  function paint() {
    const [a, b] = videos, pen = canvas.getContext("2d");
    if (!a.videoWidth || !b) return;
    if (canvas.width !== a.videoWidth || canvas.height !== a.videoHeight) {
      canvas.width = a.videoWidth;
      canvas.height = a.videoHeight;
    }
    const { width, height } = canvas;
    pen.globalCompositeOperation = "source-over";
    pen.filter = "none";
    pen.drawImage(a, 0, 0, width, height);
    if (view.value === "wipe") {
      const edge = Math.round(wipe * width);
      pen.drawImage(b, edge * b.videoWidth / width, 0, b.videoWidth - edge * b.videoWidth / width, b.videoHeight,
                    edge, 0, width - edge, height);
      pen.fillStyle = "#fff";
      pen.fillRect(edge - 1, 0, Math.max(1, width / 400), height);
      return;
    }
    pen.globalCompositeOperation = "difference";
    pen.drawImage(b, 0, 0, width, height);
    // adding the picture to itself doubles it
    pen.globalCompositeOperation = "lighter";
    for (let times = 1; times < Number(view.value); times *= 2) pen.drawImage(canvas, 0, 0);
  }
  function look() {
    const beside = view.value === "beside", names = data.videos.map((video) => video.label);
    both.hidden = beside;
    stage.classList.toggle("beneath", !beside);
    both.classList.toggle("difference", !beside && view.value !== "wipe");
    told.textContent = view.value === "wipe" ? `Left of the line: ${names[0]}. Right: ${names[1]}. Drag the line.`
      : `Where ${names[0]} and ${names[1]} differ; black is equal.`;
    canvas.setAttribute("aria-label", told.textContent);
    draw();
  }

  const on = (what, event, act) => what.addEventListener(event, act, { signal: stops.signal });
  on(play, "click", () => (playing ? pause() : start()));
  on(find(".back"), "click", () => step(-1));
  on(find(".forth"), "click", () => step(1));
  on(scrub, "input", () => { const frame = Number(scrub.value); if (playing) pause(false); go(frame); });
  on(speed, "change", setSpeed);
  on(view, "change", look);
  for (const video of videos) {
    on(video, "loadeddata", draw);
    on(video, "seeked", draw);
  }
  on(canvas, "pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  on(canvas, "pointermove", (event) => {
    if (!event.buttons) return;
    const box = canvas.getBoundingClientRect(), scale = Math.min(box.width / canvas.width, box.height / canvas.height);
    const left = box.left + (box.width - canvas.width * scale) / 2;
    wipe = Math.max(0, Math.min(1, (event.clientX - left) / (canvas.width * scale)));
    paint();
  });
  on(player, "keydown", (event) => {
    if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => step(-frames), End: () => step(frames) };
    const act = event.key === " " && !["BUTTON", "INPUT"].includes(event.target.tagName)
      ? () => (playing ? pause() : start()) : acts[event.key];
    if (!act) return;
    act();
    event.preventDefault();
    event.stopPropagation();
  });
  look();
  return () => { alive = false; stops.abort(); pause(false); stage.replaceChildren(); };
}

export default function (component) {
  const { parentElement: root, data } = component;
  const key = JSON.stringify(data);
  // the page is drawn again for many reasons; the videos go on where they are
  if (root.playerKey !== key) {
    root.playerEnd?.();
    root.playerKey = key;
    root.playerEnd = build(root, data);
  }
  return () => { root.playerEnd?.(); root.playerKey = root.playerEnd = undefined; };
}
