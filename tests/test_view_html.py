"""The page and the film of a map."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from synthetic_maps import NYU13, path_through_room, room

from semslam.looking.film import followed_poses, orbit_poses, write_video
from semslam.looking.page import _colorscale, _Scene, _surfels, quantized, write_html
from semslam.looking.viewed import Viewed, description
from semslam.rendering.pictures import picture_camera

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def viewed():
    return Viewed(room(0.08), NYU13, "a <room>", [path_through_room()])


def test_quantized_colours_are_near_and_their_scale_hits_them_exactly():
    colors = np.random.default_rng(0).integers(0, 256, (5000, 3)).astype(np.uint8)
    index, palette = quantized(colors)
    assert len(palette) <= 256
    assert np.abs(palette[index].astype(int) - colors).mean() < 20
    few = np.array([[1, 2, 3], [200, 100, 0], [1, 2, 3]], np.uint8)
    index, palette = quantized(few)
    np.testing.assert_array_equal(palette[index], few)
    scale = _colorscale(palette)
    assert len(scale) == 256 and scale[0][0] == 0 and scale[-1][0] == 1
    assert scale[int(index[1])][1] == "rgb(200,100,0)"


def test_a_page_holds_its_script_every_class_and_every_switch(viewed, tmp_path):
    write_html(tmp_path / "map.html", viewed, points=2000)
    page = (tmp_path / "map.html").read_text()
    assert "<title>a &lt;room&gt;</title>" in page
    assert "a <room>" not in page
    body = page[page.rindex("Plotly.newPlot") :]
    for name in ("floor", "wall", "table", "bed", "unlabelled", "camera path"):
        assert f'"name":"{name}"' in body, name
    for switch in ("label", "color", "confidence", "entropy", "normal", "first seen"):
        assert f'"label":"{switch}"' in body, switch
    assert '"visible":"legendonly"' in body  # the ceiling
    assert f"{len(viewed.cloud):,} surfels, 2,000 of them shown" in body
    assert not re.search(r"<(script|link)[^>]*(src|href)=", page)  # nothing is fetched
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    write_html(tmp_path / "odd.html", replace(viewed, name=odd), points=100)
    assert "<title>caf\ufffd</title>" in (tmp_path / "odd.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="the map is empty"):
        write_html(tmp_path / "none.html", viewed.without([*viewed.label_set.classes, "unlabelled"]))


def test_places_that_are_told_are_those_of_the_world(viewed):
    """Not of the page's axes, nor relative to the origin of a far world; frames as the whole recording numbers them."""
    far = replace(viewed.cloud, world_origin=np.array([500_000.0, 5_400_000.0, 0.0]))
    told = replace(viewed, cloud=far, number_of=lambda index: 1000 + index)
    scene = _Scene(told, far)
    for (_, rows), trace in zip(scene.members, _surfels(scene), strict=True):
        np.testing.assert_allclose(trace["customdata"] - far.world_origin, far.positions[rows], atol=1e-3)
        assert "customdata[2]" in trace["hovertemplate"] and "%{x" not in trace["hovertemplate"]
    x, y, z = far.positions[7] + far.world_origin
    first, last = 1000 + far.first_seen[7], 1000 + far.last_seen[7]
    said = description(told, 7)
    assert f"({x:.3f}, {y:.3f}, {z:.3f}) m" in said and said.endswith(f"frames {first} to {last}")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_turns_in_a_browser_without_a_network_and_without_errors(viewed, tmp_path):
    """Opened from a file in headless Chromium; every switch is pressed, then a class is hidden by its legend."""
    write_html(tmp_path / "map.html", viewed, points=1500)
    page = (tmp_path / "map.html").read_text()
    clicks = """<script>window.addEventListener('load', async () => {
      const map = document.getElementById('map'), wait = ms => new Promise(done => setTimeout(done, ms));
      const press = (element, ...kinds) => kinds.forEach(
        kind => element.dispatchEvent(new MouseEvent(kind, {bubbles: true, view: window})));
      await wait(200);
      const said = [];
      for (const button of document.querySelectorAll('.updatemenu-button')) {
        press(button, 'click');
        await wait(100);
        const color = map.data[0].marker.color;
        said.push(button.textContent + '=' + (typeof color === 'string' ? 'one' : 'each'));
      }
      const row = [...document.querySelectorAll('.legend .traces')].find(row => row.textContent.trim() === 'floor');
      press(row.querySelector('.legendtoggle'), 'mousedown', 'mouseup');
      await wait(600);
      const floors = map.data.filter(trace => trace.name === 'floor').map(trace => trace.visible);
      const gl = map.querySelector('canvas');
      document.title = said.join(' ') + ' floor=' + floors + ' canvas=' + Boolean(gl && gl.width > 100);
    })</script></body>"""
    (tmp_path / "used.html").write_text(page.replace("</body>", clicks))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    command += ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0"]
    command += ["--window-size=600,500", "--virtual-time-budget=5000", "--dump-dom", f"file://{tmp_path}/used.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    title = re.search("<title>(.*?)</title>", done.stdout).group(1)
    switches = "label=one color=each confidence=each entropy=each normal=each first seen=each"
    assert title == f"{switches} floor=legendonly,legendonly canvas=true"
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "willReadFrequently" not in line]
    assert said == []


def test_a_film_has_a_frame_for_every_pose_and_shows_the_map(viewed, tmp_path):
    import cv2

    camera = picture_camera(160, 120)
    assert write_video(tmp_path / "orbit.mp4", viewed, orbit_poses(viewed, camera, 6), camera=camera, fps=10) == 6
    film = cv2.VideoCapture(str(tmp_path / "orbit.mp4"))
    frames = []
    while (read := film.read())[0]:
        frames.append(read[1])
    assert len(frames) == 6 and film.get(cv2.CAP_PROP_FPS) == 10
    assert frames[0].shape == (120, 160, 3)
    assert np.abs(frames[0].astype(int) - frames[3]).mean() > 5
    assert frames[0].std() > 20


def test_following_stands_behind_the_recorded_camera(viewed):
    followed = followed_poses(viewed)
    offset = viewed.trajectory[:, :3, 3] - followed[:, :3, 3]
    np.testing.assert_allclose(np.einsum("ij,ij->i", offset, viewed.trajectory[:, :3, 2]), 0.6)
    with pytest.raises(ValueError, match="no trajectory to follow"):
        followed_poses(Viewed(viewed.cloud, NYU13))


def test_films_of_other_kinds_are_refused(viewed, tmp_path):
    with pytest.raises(ValueError, match=r"written as \.mp4, not as \.gif"):
        write_video(tmp_path / "map.gif", viewed, [])
