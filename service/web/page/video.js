// A video: progress while it runs, then frame by frame with the skeleton, angles over time, repetitions, files.

import { call, form, lines, Problem, skeleton } from "./api.js";
import { codePanel, videoCode } from "./code.js";
import { download, duration, element, fields, say, showProblem } from "./dom.js";
import { drawPeople, fit } from "./draw.js";
import { chosenMeasurements, measurementChoice } from "./measurements.js";
import { pickers } from "./pick.js";
import { anglePlot } from "./plot.js";

export function videoPanel(panel, info) {
  const controls = panel.querySelector("form");
  const [go, stop] = [panel.querySelector(".go"), panel.querySelector(".stop")];
  const bar = panel.querySelector("progress");
  const stage = panel.querySelector(".stage");
  const canvas = panel.querySelector("canvas");
  const film = panel.querySelector("video");
  const [play, scrub, at] = [".play", ".scrub", ".at"].map((name) => panel.querySelector(name));
  const table = panel.querySelector("table");
  const plotPlace = panel.querySelector(".plot");
  const downloads = panel.querySelector(".downloads");
  let file, running, plot, frames = [], template, size, playable = false, shown = 0;
  measurementChoice(panel, info.measurements, ["knee_flexion"]);

  const options = () => {
    const { model, template: wanted, every_nth_frame: every, smoothing, annotated } = fields(controls);
    return {
      model, template: wanted, measurement: chosenMeasurements(panel).join(","),
      every_nth_frame: every === "1" ? "" : every, smoothing: smoothing ? "true" : "",
      annotated_video: annotated ? "mp4" : "",
    };
  };
  const updateCode = codePanel(panel, () => {
    const { model, template: wanted, measurement, every_nth_frame: every, smoothing, annotated_video: annotated } = options();
    return videoCode(options(), {
      ...(model && { model }), ...(wanted && { skeleton: wanted }), ...(measurement && { measurements: [measurement] }),
      ...(every && { everyNthFrame: Number(every) }), ...(smoothing && { smoothing: "SMOOTHING_ONE_EURO" }),
      ...(annotated && { annotatedVideo: "ANNOTATED_VIDEO_MP4" }),
    });
  });

  const paint = () => {
    if (!frames.length) return;
    const frame = frames[shown];
    const scale = fit(canvas, size.width, size.height, 960);
    const pen = canvas.getContext("2d");
    if (playable) pen.drawImage(film, 0, 0, canvas.width, canvas.height);
    else pen.clearRect(0, 0, canvas.width, canvas.height);
    drawPeople(canvas, frame.persons, template, { scale, least: 0.2 });
    canvas.setAttribute("aria-label", `Frame ${frame.frame_index} with ${frame.persons.length} people`);
    at.textContent = `${frame.frame_index} · ${frame.time.toFixed(2)} s`;
    plot?.mark(shown);
  };
  const seek = (number) => {
    shown = Math.max(0, Math.min(frames.length - 1, number));
    scrub.value = String(shown);
    // Half a frame later: at the very time of a frame a browser may still show the one before it.
    const next = frames[shown + 1]?.time ?? frames[shown].time + 1e-3;
    if (playable) film.currentTime = frames[shown].time + Math.min(0.004, (next - frames[shown].time) / 2);
    else paint();
  };
  film.addEventListener("seeked", paint);

  const follow = () => {
    if (film.paused) return;
    let number = shown;
    if (frames[number].time > film.currentTime) number = 0;
    while (number + 1 < frames.length && frames[number + 1].time <= film.currentTime + 1e-4) number += 1;
    shown = number;
    scrub.value = String(shown);
    paint();
    requestAnimationFrame(follow);
  };
  film.addEventListener("play", () => { play.textContent = "❚❚"; play.setAttribute("aria-label", "Pause"); follow(); });
  film.addEventListener("pause", () => { play.textContent = "▶"; play.setAttribute("aria-label", "Play"); });
  play.addEventListener("click", () => { if (film.paused) film.play(); else film.pause(); });
  scrub.addEventListener("input", () => { film.pause(); seek(Number(scrub.value)); });

  const load = () => new Promise((done) => {
    playable = false;
    film.onloadeddata = () => { playable = true; done(); };
    film.onerror = () => done(); // a codec that this browser lacks: the skeleton is shown alone
    if (film.src) URL.revokeObjectURL(film.src);
    film.src = URL.createObjectURL(file);
    film.load();
  });

  const repetitions = (summary) => {
    const rows = summary.measurements.flatMap((one) => ["left", "right"].filter((side) => one[side]).map((side) => {
      const found = one[side];
      const range = found.range_of_motion_deg === null ? "–"
        : `${found.range_of_motion_deg.toFixed(1)}° (${found.min_deg.toFixed(0)} to ${found.max_deg.toFixed(0)})`;
      const moves = found.repetitions.map((rep) => `${rep.start.toFixed(1)}–${rep.end.toFixed(1)} s, ${rep.range_of_motion_deg.toFixed(0)}°`);
      const who = one.track_id === null ? "" : `, person ${one.track_id}`;
      return element("tr", {},
        element("td", { textContent: one.title + who }), element("td", { textContent: side }),
        element("td", { className: "number", textContent: range }),
        element("td", { textContent: moves.length ? `${moves.length}: ${moves.join("; ")}` : "none" }));
    }));
    table.hidden = !rows.length;
    table.tBodies[0].replaceChildren(...rows);
  };

  const finish = async (texts, pieces, summary) => {
    bar.hidden = true;
    downloads.replaceChildren(download("frames.jsonl", texts, "application/x-ndjson"));
    if (pieces.length) downloads.append(download("annotated.mp4", pieces, "video/mp4"));
    if (!frames.length) { say(panel, "The video has no frame in the part that was analysed."); return; }
    await load();
    stage.hidden = false;
    scrub.max = String(frames.length - 1);
    play.disabled = !playable;
    repetitions(summary);
    plot?.destroy();
    plot = anglePlot(plotPlace, frames, (number) => { film.pause(); seek(number); });
    plotPlace.hidden = !plot;
    seek(0);
    say(panel, `${summary.frames_analyzed} frames in ${duration(summary.wall_time)}, people on ${summary.frames_with_persons} of them` +
      (playable ? "" : "; this browser cannot play the file, so the skeleton is shown alone"));
  };

  const analyse = async () => {
    if (!file) { say(panel, "Choose a video first."); return; }
    running = new AbortController();
    [frames, shown] = [[], 0];
    const [texts, pieces] = [[], []];
    showProblem(panel, null);
    stage.hidden = table.hidden = plotPlace.hidden = true;
    downloads.replaceChildren();
    [go.disabled, stop.hidden, bar.hidden] = [true, false, false];
    bar.removeAttribute("value");
    say(panel, "Sending the video …");
    try {
      const answer = await call("v1/video/upload", {
        method: "POST", body: form(options(), "video", file), signal: running.signal,
        headers: { accept: "application/x-ndjson" },
      });
      let summary;
      for await (const line of lines(answer)) {
        if (line.type !== "annotated_chunk" && line.type !== "progress") texts.push(`${JSON.stringify(line)}\n`);
        if (line.type === "started") {
          size = line.video;
          template = await skeleton(line.skeleton);
        } else if (line.type === "frame") frames.push(line);
        else if (line.type === "annotated_chunk") pieces.push(Uint8Array.from(atob(line.data), (letter) => letter.charCodeAt(0)));
        else if (line.type === "progress") {
          bar.value = line.pct;
          const left = line.eta === null ? "" : `, ${duration(line.eta)} to go`;
          say(panel, `${line.frame}${line.total ? ` of ${line.total}` : ""} frames, ${line.fps.toFixed(1)} a second${left}`);
        } else if (line.type === "summary") summary = line;
        else if (line.type === "error") throw new Problem(line.message, line.errors);
      }
      if (!summary) throw new Problem("The answer was cut short.");
      await finish(texts, pieces, summary);
    } catch (error) {
      if (error.name === "AbortError") say(panel, "Stopped.");
      else showProblem(panel, error);
      bar.hidden = true;
    } finally {
      [go.disabled, stop.hidden] = [false, true];
    }
  };

  pickers(panel, (picked) => { file = picked; say(panel, `${picked.name}, ${(picked.size / 1e6).toFixed(1)} MB`); });
  controls.addEventListener("submit", (event) => { event.preventDefault(); analyse(); });
  stop.addEventListener("click", () => running?.abort());
  controls.addEventListener("change", updateCode);
}
