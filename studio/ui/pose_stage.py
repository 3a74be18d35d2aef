"""The stage of the Pose page: a frame with its skeleton, whose joints can be dragged."""

import base64
from typing import Any, Final

import cv2
import numpy as np
import streamlit as st

from pose.skeleton import BONES, COLOURS, JOINTS

_HTML: Final = '<div class="stage"></div>'
_CSS: Final = """
.stage { display: flex; justify-content: center; line-height: 0; max-width: 100%; }
.stage svg { display: block; max-width: 100%; height: auto; border-radius: 8px; touch-action: none; user-select: none; }
.joint { cursor: grab; stroke: #000; stroke-opacity: 0.55; }
.joint:focus, .joint:hover { stroke: #fff; stroke-opacity: 1; outline: none; }
.joint.held { cursor: grabbing; }
.joint.doubt { stroke: #fff; stroke-opacity: 1; stroke-dasharray: 2 1.5; }
"""
# Text goes in by textContent and attributes only, so nothing in `data` is ever read as HTML.
_JS: Final = """
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const stage = parentElement.querySelector('.stage');
  if (!stage || !data) { return; }
  const NS = 'http://www.w3.org/2000/svg';
  const make = (name, attributes) => {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) { node.setAttribute(key, value); }
    return node;
  };
  const [wide, high] = data.size;
  const unit = Math.max(wide, high) / 100;
  const svg = make('svg', { viewBox: `0 0 ${wide} ${high}`, width: data.shown[0], height: data.shown[1],
                            role: 'img', 'aria-label': data.label });
  svg.append(make('rect', { width: wide, height: high, fill: '#1c1c1e' }));
  if (data.picture) {
    svg.append(make('image', { href: data.picture, width: wide, height: high, preserveAspectRatio: 'none' }));
    svg.append(make('rect', { width: wide, height: high, fill: '#000', 'fill-opacity': 0.3 }));
  }
  const spots = data.joints.map((joint) => ({ ...joint }));
  const sticks = data.bones.map(([a, b, colour]) => {
    const line = make('line', { stroke: colour, 'stroke-width': 0.8 * unit, 'stroke-linecap': 'round',
                                'stroke-opacity': 0.85 });
    svg.append(line);
    return { a, b, line };
  });
  const follow = () => sticks.forEach(({ a, b, line }) => {
    const [from, to] = [spots[a], spots[b]];
    line.setAttribute('visibility', from.seen && to.seen ? 'visible' : 'hidden');
    for (const [key, value] of [['x1', from.x], ['y1', from.y], ['x2', to.x], ['y2', to.y]]) {
      line.setAttribute(key, value);
    }
  });
  const send = (spot) => setTriggerValue('moved', { joint: spot.name, frame: data.frame,
    x: Math.round(spot.x * 10) / 10, y: Math.round(spot.y * 10) / 10 });
  spots.filter((spot) => spot.seen).forEach((spot) => {
    const dot = make('circle', { cx: spot.x, cy: spot.y, r: 1.1 * unit, fill: spot.colour, 'stroke-width': 0.4 * unit,
                                 class: spot.doubt ? 'joint doubt' : 'joint', tabindex: 0, role: 'button',
                                 'aria-label': spot.said });
    const title = make('title', {});
    title.textContent = spot.said;
    dot.append(title);
    const put = (x, y) => {
      spot.x = Math.min(Math.max(x, 0), wide);
      spot.y = Math.min(Math.max(y, 0), high);
      dot.setAttribute('cx', spot.x);
      dot.setAttribute('cy', spot.y);
      follow();
    };
    let moved = false;
    dot.onpointerdown = (event) => {
      event.preventDefault();
      moved = false;
      dot.setPointerCapture(event.pointerId);
      dot.classList.add('held');
    };
    dot.onpointermove = (event) => {
      if (!dot.classList.contains('held')) { return; }
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      moved = true;
      put(place.x, place.y);
    };
    dot.onpointerup = () => {
      if (!dot.classList.contains('held')) { return; }
      dot.classList.remove('held');
      if (moved) { send(spot); }
    };
    dot.onpointercancel = () => dot.classList.remove('held');
    let waiting = 0;
    dot.onkeydown = (event) => {
      const step = (event.shiftKey ? 5 : 1) * wide / data.shown[0];
      const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
      if (!by) { return; }
      event.preventDefault();
      event.stopPropagation();
      put(spot.x + by[0], spot.y + by[1]);
      clearTimeout(waiting);
      waiting = setTimeout(() => send(spot), 400);  // several key presses are one step
    };
    svg.append(dot);
  });
  follow();
  const focused = stage.querySelector('.joint:focus')?.getAttribute('aria-label');
  stage.replaceChildren(svg);
  [...svg.querySelectorAll('.joint')].find((dot) => dot.getAttribute('aria-label') === focused)?.focus();
}
"""

_stage = st.components.v2.component("animatex_pose_stage", html=_HTML, css=_CSS, js=_JS)


def draw_stage(
    poses: Any, frame: int, picture: Any, *, doubtful: frozenset[str], height_px: int, key: str, on_moved: Any
) -> None:
    """Draws one frame; `on_moved` is called when a joint was dragged, `moved_joint` then says which and where.

    Args:
        poses: the sequence; px of its canvas.
        frame: which frame.
        picture: RGB of the frame, or None.
        doubtful: joints with a dashed ring.
        height_px: of the picture on the page.
        key: of the component.
        on_moved: a callback without arguments.
    """
    width, height = poses.frame_size
    seen, places = poses.visible[frame].tolist(), poses.xy[frame].tolist()
    shown = [max(1, round(height_px * width / height)), height_px]
    data = {
        "size": [width, height],
        "shown": shown,
        "frame": frame,
        "label": f"frame {frame} with the skeleton; joints can be dragged",
        "picture": None if picture is None else _data_url(picture, shown),
        "joints": [
            {"name": name, "said": name.replace("_", " "), "x": x, "y": y, "seen": there, "colour": _hex(colour),
             "doubt": name in doubtful}
            for name, (x, y), there, colour in zip(JOINTS, places, seen, COLOURS, strict=True)
        ],
        "bones": [[a, b, _hex(colour)] for (a, b), colour in zip(BONES, COLOURS, strict=False)],
    }  # fmt: skip
    _stage(key=key, data=data, on_moved_change=on_moved, height=height_px + 4)


def moved_joint(key: str) -> tuple[str, int, float, float] | None:
    """What was dragged: joint, frame, x, y in px; None where the browser sent something else."""
    moved = getattr(st.session_state.get(key), "moved", None)
    if not isinstance(moved, dict) or moved.get("joint") not in JOINTS:
        return None
    numbers = [moved.get(name) for name in ("frame", "x", "y")]
    if not all(isinstance(number, int | float) and abs(number) < 1e6 for number in numbers):
        return None
    return moved["joint"], int(moved["frame"]), float(moved["x"]), float(moved["y"])


def _data_url(picture: np.ndarray, shown: list[int]) -> str:
    """A small JPEG of twice the shown size at most."""
    pixels = np.asarray(picture)
    scale = min(1.0, 2 * shown[1] / pixels.shape[0])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    done, coded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
    return f"data:image/jpeg;base64,{base64.b64encode(coded.tobytes()).decode()}" if done else ""


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
