// People on a canvas, in px of the image they were found in.

const SIDES = { left: "#3b82f6", right: "#f97316", middle: "#22c55e" };

export function sideColor(name) {
  if (/(^|_)left(_|$)/.test(name)) return SIDES.left;
  if (/(^|_)right(_|$)/.test(name)) return SIDES.right;
  return SIDES.middle;
}

// Sets the canvas to the size of the image, at most `most` px wide or high, and returns the scale.
export function fit(canvas, width, height, most = 1280) {
  const scale = Math.min(1, most / Math.max(width, height));
  const size = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  canvas.classList.add("drawn");
  return scale;
}

export function drawPeople(canvas, people, skeleton, { scale = 1, least = 0, chosen = -1, boxes = true } = {}) {
  const pen = canvas.getContext("2d");
  const width = Math.max(2, Math.max(canvas.width, canvas.height) / 300);
  const places = new Map(skeleton.keypoints.map((point, place) => [point.name, place]));
  people.forEach((person, number) => {
    const faint = chosen >= 0 && chosen !== number;
    pen.globalAlpha = faint ? 0.25 : 1;
    const points = person.smoothed_keypoints || person.keypoints;
    const seen = ([x, y, score]) => score >= least && (x || y || score);
    pen.lineWidth = width;
    pen.lineCap = "round";
    for (const edge of skeleton.edges) {
      const [from, to] = [points[places.get(edge.start)], points[places.get(edge.end)]];
      if (!from || !to || !seen(from) || !seen(to)) continue;
      pen.strokeStyle = edge.color || sideColor(edge.end === "nose" ? edge.start : edge.end);
      pen.beginPath();
      pen.moveTo(from[0] * scale, from[1] * scale);
      pen.lineTo(to[0] * scale, to[1] * scale);
      pen.stroke();
    }
    const radius = width * (skeleton.keypoints.length > 40 ? 0.6 : 1.2);
    points.forEach((point, place) => {
      if (!seen(point)) return;
      pen.fillStyle = skeleton.keypoints[place].color || sideColor(skeleton.keypoints[place].name);
      pen.beginPath();
      pen.arc(point[0] * scale, point[1] * scale, radius, 0, 2 * Math.PI);
      pen.fill();
    });
    if (!boxes) return;
    const [x1, y1, x2, y2] = person.box.map((value) => value * scale);
    pen.strokeStyle = pen.fillStyle = "#facc15";
    pen.lineWidth = width / 2;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = `${person.track_id ?? number}  ${person.score.toFixed(2)}`;
    pen.font = `600 ${Math.round(width * 5)}px system-ui, sans-serif`;
    const height = width * 6.5;
    const top = Math.max(y1 - height, 0);
    pen.fillRect(x1, top, pen.measureText(text).width + width * 3, height);
    pen.fillStyle = "#111827";
    pen.fillText(text, x1 + width * 1.5, top + height * 0.77);
  });
  pen.globalAlpha = 1;
}
