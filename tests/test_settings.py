"""What a setting may hold follows from the type that its class declares."""

from typing import Annotated, Any, Literal, TypedDict

import pytest
from pydantic import Field

from segladder.errors import ConfigError
from segladder.settings import AboveZero, KeysOf, Node, Positive, Scales, Share, check, check_value, expected, fits

METHODS, NETS, DATA = "segladder.methods", "segladder.nets", "segladder.data"
SHARE = "a number at least 0 and at most 1"
TWO, THREE = (f"a list of {count}, each a whole number at least 1" for count in (2, 3))
WIDTHS = "a list, each a whole number at least 1 with one at least"


@pytest.mark.parametrize(
    ("target", "key", "value", "told"),
    [
        (f"{METHODS}.few_shot.co_fcn.CoFCN", "fusion", "middle", "one of early, late"),
        (f"{METHODS}.few_shot.fine_tune.FineTune", "pixels", 1, "a whole number at least 2"),
        (f"{METHODS}.few_shot.logistic_regression.LogisticRegression", "penalty", 0, "a number above 0"),
        (f"{METHODS}.few_shot.sg_one.SGOne", "form", "resnet", "one of auto, vgg, pyramid"),
        (f"{METHODS}.few_shot.sg_one.SGOne", "preset", "paper", "one of default, official"),
        (f"{METHODS}.few_shot.sg_one.SGOne", "backbone", "resnet", "a choice or null"),
        (f"{METHODS}.full.deeplabv3plus.DeepLabV3Plus", "rates", [6, 12], THREE),
        (f"{METHODS}.full.fusionseg.FusionSeg", "rates", [], WIDTHS),
        (f"{METHODS}.full.patch_cnn.PatchCNN", "channels", [], WIDTHS),
        (f"{METHODS}.full.segnet.SegNet", "channels", [], WIDTHS),
        (f"{METHODS}.full.unet.UNet", "upsampling", "cubic", "one of nearest, bed_of_nails, transposed, bilinear"),
        (f"{METHODS}.image_level.advcam.AdvCAM", "background_score", 2, SHARE),
        (f"{METHODS}.image_level.affinity_net.AffinityNet", "channels", [], WIDTHS),
        (f"{METHODS}.image_level.affinity_net.AffinityNet", "radius", 1, "a whole number at least 2"),
        (f"{METHODS}.image_level.attention_cam.AttentionCAM", "background_score", -0.5, SHARE),
        (f"{METHODS}.image_level.grad_cam.GradCAM", "background_score", 2, SHARE),
        (f"{METHODS}.image_level.grad_cam.GradCAM", "output_stride", 4, "one of 8, 16, 32 or null"),
        (f"{METHODS}.image_level.irn.IRN", "maximum", "pixel", "one of image, class"),
        (f"{METHODS}.image_level.irn.IRN", "radius", 1, "a whole number at least 2"),
        (f"{METHODS}.image_level.irn.IRN", "walk_radius", 1, "a whole number at least 2"),
        (f"{METHODS}.image_level.dense_crf.DenseCRF", "certainty", 1.5, "a number above 0 and below 1 or null"),
        (f"{METHODS}.image_level.puzzle_cam.PuzzleCAM", "detach", "both", "one of full, tiles or null"),
        (f"{METHODS}.image_level.seam.SEAM", "correlation_channels", [64], TWO),
        (f"{METHODS}.image_level.seam.SEAM", "hardest", 0, "a number above 0 and at most 1"),
        (f"{METHODS}.zero_shot.spnet.SPNet", "softmax_over", "none", "one of seen, all"),
        (f"{METHODS}.zero_shot.zs3net.ZS3Net", "context", "tree", "one of none, graph"),
        (f"{METHODS}.zero_shot.zs3net.ZS3Net", "sigmas", [], "a list, each a number above 0 with one at least"),
        (f"{METHODS}.zero_shot.zs3net.ZS3Net", "quirks", {"loud": 1}, "a choice or keys with values or null"),
        (f"{METHODS}.zero_shot.attribute.AttributeNetwork", "regions", "all", "one of connected, image, place"),
        (f"{NETS}.backbone.Backbone", "output_stride", 7, "one of 8, 16, 32 or null"),
        (f"{NETS}.backbone.Backbone", "mean", [0.5], "a list of 3, each a number or null"),
        (f"{NETS}.backbone.Backbone", "batch_norm", "half", "one of train, frozen, folded"),
        (f"{DATA}.sources.voc.VOC", "cache", "redis", "one of none, memmap"),
        (f"{DATA}.sources.shapes.Shapes", "size", 32, "a whole number at least 48"),
        (f"{DATA}.sources.folder.Folder", "val_share", 1, "a number above 0 and below 1"),
    ],
)
def test_a_class_says_what_its_keys_may_hold(target, key, value, told):
    with pytest.raises(ConfigError) as refused:
        check_value(Node, {"_target_": target, key: value}, "place")
    assert str(refused.value).startswith(f"place.{key}=") and str(refused.value).endswith(f": expected {told}")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("anchor", 0, "a number above 0"),
        ("proposals", 0, "a whole number at least 1"),
        ("least_score", 1.5, SHARE),
        ("most", 0.5, "a whole number at least 1"),
    ],
)
def test_the_network_of_mask_rcnn_says_what_its_keys_may_hold(key, value, told):
    node = {"_target_": f"{METHODS}.full.mask_rcnn.MaskRCNN", "network": {key: value}}
    with pytest.raises(ConfigError) as refused:
        check_value(Node, node, "method")
    assert str(refused.value) == f"method.network.{key}={value}: expected {told}"


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Positive, [1, 10**9], [0, -1, 1.5, True, "1", None, [1]]),
        (Share, [0, 1, 0.5], [-0.1, 1.1, float("nan"), float("inf"), "0.5", True]),
        (AboveZero | None, [1e-9, None], [0, "null"]),
        (Scales, [[1], [0.5, 2]], [[], [0], 1, ["1"]]),
        (bool, [True, False], [0, 1, "true"]),
        (Literal["a", 8], ["a", 8], ["b", "8", 8.5]),
        (tuple[float, float], [[1, 2]], [[1], [1, 2, 3]]),
        (dict[str, int], [{}, {"a": 1}], [{"a": "b"}, []]),
        (Annotated[str, Field(pattern="^x")], ["xy"], ["yx", 1]),
    ],
)
def test_nothing_is_converted_but_whole_numbers(annotation, good, bad):
    assert all(fits(annotation, value) for value in good)
    assert not any(fits(annotation, value) for value in bad)


class Inner(TypedDict):
    size: Positive


class Outer(TypedDict):
    inner: Inner
    further: Annotated[Node, KeysOf(Inner)] | None
    anything: Any


WHOLE = {"inner": {"size": 1}, "further": {"size": 2}, "anything": {"_target_": "nothing"}}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"inner": {"size": 0}}, "at.inner.size=0: expected a whole number at least 1"),
        ({"inner": {"siz": 1}}, r"at.inner.siz: no such key \(did you mean size\?\); allowed: size"),
        ({"inner": {}}, "at.inner.size: is missing"),
        ({"inner": 3}, "at.inner=3: expected keys such as size"),
        ({"further": {"size": "x"}}, "at.further.size=x"),
        ({"inner": {"size": "???"}}, "at.inner.size: needs a value, expected a whole number"),
        ({"more": 1}, "at.more: no such key; allowed: inner, further, anything"),
    ],
)
def test_nested_keys_are_named_by_their_place(change, told):
    check(Outer, WHOLE, "at")
    check(Outer, WHOLE | {"further": None}, "at")
    with pytest.raises(ConfigError, match=told):
        check(Outer, WHOLE | change, "at")


def test_types_are_said_in_words():
    assert expected(list[Share] | None) == "a list, each a number at least 0 and at most 1 or null"
    assert expected(Annotated[str, Field(pattern="^x", description="a word with x")]) == "a word with x"
