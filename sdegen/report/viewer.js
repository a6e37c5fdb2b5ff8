// Moves the samples of a run along their noise levels: points and images on canvases.
(() => {
  const data = JSON.parse(document.getElementById("states").textContent);
  const slider = document.getElementById("level");
  const said = document.getElementById("said");
  const play = document.getElementById("play");
  const colours = ["#0b62a4", "#d1495b", "#2a8c4a", "#c77c11", "#7b4fa3", "#444444",
    "#1f9e9e", "#b04a8a", "#8a7a1f", "#5b6b7b"];
  const last = data.levels.length - 1;

  const integers = (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Int16Array(bytes.buffer);
  };

  // A canvas as sharp as the screen; its drawing is in units of CSS pixels.
  const sharp = (canvas) => {
    const wide = canvas.clientWidth, high = canvas.clientHeight;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(wide * ratio)) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(high * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, high);
    return [pen, wide, high];
  };

  const place = (states, k, i, side) =>
    [(states[k][2 * i] / 65534 + 0.5) * side, (0.5 - states[k][2 * i + 1] / 65534) * side];

  const points = (canvas, states, k, groups, trails) => {
    const [pen, side] = sharp(canvas);
    const n = states[k].length / 2;
    pen.globalAlpha = 0.35;
    for (let i = 0; i < Math.min(trails, n); i++) {
      pen.strokeStyle = colours[groups.length ? groups[i] % colours.length : 0];
      pen.beginPath();
      for (let j = 0; j <= k; j++) pen.lineTo(...place(states, j, i, side));
      pen.stroke();
    }
    pen.globalAlpha = 0.7;
    for (let i = 0; i < n; i++) {
      const [x, y] = place(states, k, i, side);
      pen.fillStyle = colours[groups.length ? groups[i] % colours.length : 0];
      pen.beginPath();
      pen.arc(x, y, Math.max(1, side / 260), 0, 2 * Math.PI);
      pen.fill();
    }
  };

  // Tile by tile, so that images are apart and none runs into the next where it is enlarged.
  const images = (canvas, sheet) => {
    const [pen, wide, high] = sharp(canvas);
    if (!sheet.width) return;
    const [w, h] = data.tile, columns = sheet.width / w, rows = sheet.height / h;
    const scale = Math.min(wide / sheet.width, high / sheet.height), gap = Math.min(2, scale * w / 8);
    pen.imageSmoothingQuality = "high";
    for (let i = 0; i < columns * rows; i++) {
      const x = i % columns, y = Math.floor(i / columns);
      pen.drawImage(sheet, x * w, y * h, w, h, scale * x * w, scale * y * h,
        scale * w - gap, scale * h - gap);
    }
  };

  const unpacked = (text, drawn) => {
    if (data.kind === "points") return integers(text);
    const image = new Image();
    image.onload = drawn;
    image.src = text;
    return image;
  };

  const rows = data.solvers.map((each, s) => ({
    at: each.at,
    states: each.states.map((text) => unpacked(text, () => show())),
    canvas: document.getElementById(`way-${s}`),
    told: document.getElementById(`told-${s}`),
  }));

  const number = (x) => x >= 100 ? x.toFixed(0) : x >= 0.01 ? x.toPrecision(3) : x.toExponential(1);

  function show() {
    const level = data.levels[Number(slider.value)];
    const noise = level.rho === undefined ? "" : `σ/α = ${number(level.rho)}, `;
    said.textContent = `${noise}t = ${number(level.t)}`;
    for (const row of rows) {
      const k = row.at[Number(slider.value)];
      row.told.textContent = `state ${k} of ${row.states.length - 1}`;
      if (data.kind === "points") points(row.canvas, row.states, k, data.groups, 24);
      else images(row.canvas, row.states[k]);
    }
  }

  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === last) slider.value = 0;
    play.textContent = "Pause";
    timer = setInterval(() => {
      if (Number(slider.value) === last) return stop();
      slider.value = Number(slider.value) + 1;
      show();
    }, Math.max(60, 3000 / last));
  });
  slider.addEventListener("input", () => { if (timer) stop(); show(); });
  window.addEventListener("resize", show);

  // The samples by solver and budget.
  const still = [...document.querySelectorAll("canvas[data-samples]")]
    .map((canvas) => [canvas, unpacked(canvas.dataset.samples, () => rest())]);
  const rest = () => still.forEach(([canvas, x]) => data.kind === "points"
    ? points(canvas, [x], 0, data.groups, 0) : images(canvas, x));
  window.addEventListener("resize", rest);

  show();
  rest();
})();
