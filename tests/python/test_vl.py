"""lanner.vl: images from wherever a script has them."""

import base64
import functools
import http.server
import io
import threading

import pytest
from PIL import Image

from lanner.errors import InvalidArgumentError, LannerError, ModelNotFoundError
from lanner.vl import encode_image_base64, load_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.fixture
def picture(tmp_path):
    """A PNG, the left half red and the right half transparent."""
    image = Image.new("RGBA", (8, 4), (0, 0, 255, 0))
    image.paste((*RED, 255), (0, 0, 4, 4))
    path = tmp_path / "a picture.png"
    image.save(path)
    return path


@pytest.fixture
def server(tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{files.server_port}"
    files.shutdown()
    files.server_close()


def check(image):
    assert (image.mode, image.size) == ("RGB", (8, 4))
    assert image.getpixel((0, 0)) == RED and image.getpixel((7, 3)) == WHITE


def test_files(picture):
    check(load_image(picture))
    check(load_image(str(picture)))
    check(load_image("file://" + str(picture).replace(" ", "%20")))


def test_network(picture, server):
    check(load_image(f"{server}/a%20picture.png"))
    with pytest.raises(LannerError, match="/none.png: HTTP Error 404"):
        load_image(f"{server}/none.png")
    with pytest.raises(LannerError, match="^http://127.0.0.1:9/a.png: .*refused"):
        load_image("http://127.0.0.1:9/a.png")


def test_base64(picture):
    check(load_image("data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()))
    text = encode_image_base64(picture)
    check(load_image("data:image/png;base64," + text))
    assert Image.open(io.BytesIO(base64.b64decode(text))).format == "PNG"
    for wrong in ("data:image/png;base64,??", "data:image/png,abc", "data:", "data:image/png;base64"):
        with pytest.raises(InvalidArgumentError, match="base64"):
            load_image(wrong)


def test_images_of_pillow(picture):
    check(load_image(Image.open(picture)))
    palette = Image.new("P", (8, 4), 1)
    palette.putpalette([*WHITE, *RED])
    assert load_image(palette).getpixel((0, 0)) == RED
    clear = Image.new("P", (8, 4), 1)
    clear.putpalette([*WHITE, *RED])
    clear.info["transparency"] = 1
    assert load_image(clear).getpixel((0, 0)) == WHITE
    assert load_image(Image.new("L", (8, 4), 7)).getpixel((0, 0)) == (7, 7, 7)


def test_what_is_no_image(tmp_path, picture, monkeypatch):
    with pytest.raises(ModelNotFoundError, match="^/no/such/file: there is no such file$"):
        load_image("/no/such/file")
    with pytest.raises(LannerError, match="directory"):
        load_image(tmp_path)
    for size in (0, 20, 60):  # of a file that broke off
        (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:size])
        with pytest.raises(LannerError, match="broken.png: is no image that Pillow reads"):
            load_image(tmp_path / "broken.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(LannerError, match="is no image that Pillow reads: Image size"):
        load_image(picture)
    monkeypatch.setattr("lanner.vl._MAX_BYTES", 10)
    with pytest.raises(LannerError, match="has more than"):
        load_image(picture)
