"""How each kind of product is drawn."""

import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from tools.sample_data.canvas import Drawing, Mask
from tools.sample_data.colors import (
    BEIGE,
    BLACK,
    BROWN,
    CHARCOAL,
    CREAM,
    GOLD,
    GUM,
    RED,
    SILVER,
    TAN,
    WHITE,
    Color,
    darker,
    lighter,
    mix,
)
from tools.sample_data.geometry import (
    Points,
    both_sides,
    box,
    ellipse,
    mirror,
    path,
    star,
    symmetric,
)


def tshirt(
    art: Drawing,
    color: Color,
    *,
    sleeves: Color | None = None,
    stripes: Color | None = None,
    band: Color | None = None,
    badge: Color | None = None,
    pocket: bool = False,
    v_neck: bool = False,
) -> None:
    """A T-shirt laid flat."""
    rim = "C45 35 40 25 38.2 15.5" if v_neck else "C43.5 25.6 39.6 21.5 38.2 15.5"
    throat = 35.0 if v_neck else 25.6
    back = art.solid(
        symmetric(f"M50 14 Q43 14 38.2 15.5 L38.2 22 L42 {throat} L50 {throat + 2}"),
        darker(color, 0.42),
    )
    for cut, hem in zip(
        both_sides("M31 17.6 Q23 19.6 19.6 25 L8.6 42.5 Q13 47.8 20.5 49 L29 37 Q28 26 31 17.6"),
        both_sides("M10 40.4 Q14.6 45.4 22 46.8"),
        strict=True,
    ):
        sleeve = art.solid(cut, sleeves or color, 5)
        if stripes:
            _striped(art, sleeve, stripes, 5)
        art.grain(sleeve)
        art.stitches(hem, darker(sleeves or color, 0.2))
    outline = symmetric(
        f"M50 {throat} {rim} L30.6 17.8 C27.6 25 28.2 31 28.8 37 C30 52 29 70 28 85 Q39 88 50 88"
    )
    body = art.shape(outline)
    art.fill(body, color)
    if stripes:
        art.fill(body & (art.down % 7 > 4.2), stripes)
    if band:
        art.fill(body & (art.down > 41) & (art.down < 55), band)
    art.light(body, 6, 0.5)
    if badge:
        sun = art.shape(ellipse(50, 46, 9, 9))
        art.fill(sun & (art.down < 46), badge)
        for row, width in enumerate((9.0, 7.4, 4.6)):
            art.fill(art.shape(box(50 - width, 47.4 + 3 * row, 50 + width, 49 + 3 * row)), badge)
    if pocket:
        patch = art.solid(path("M55 36 L66 36 L66 46.5 L60.5 49.5 L55 46.5 L55 36"), color, 1, 0.25)
        art.stitches(path("M55.6 37.8 L65.4 37.8"), darker(color, 0.25))
        art.grain(patch, 0.03)
    art.grain(body)
    for fold in (
        *both_sides("M30 38 Q35 47 34 58"),
        *both_sides("M31 80 Q37 72 36 62"),
        path("M56 84 Q59 72 55 62"),
        path("M43 84 Q41 76 45 66"),
    ):
        art.crease(fold, body, 1.8, 0.16)
    for side in both_sides("M30.9 17.8 C28 25 28.4 31 29 37"):
        art.seam(side, darker(color, 0.25))
    art.stitches(path("M28.6 82.6 Q39 85.6 50 85.6 Q61 85.6 71.4 82.6"), darker(color, 0.2))
    collar = np.concatenate(
        [path(f"M50 {throat} {rim}")[::-1], mirror(path(f"M50 {throat} {rim}"))]
    )
    art.rim(collar, 2.4, darker(sleeves or color, 0.08), back | body)


def dress(
    art: Drawing,
    color: Color,
    *,
    dots: Color | None = None,
    belt: Color | None = None,
    hem: float = 86,
    flare: float = 24,
    straps: bool = False,
) -> None:
    """A sleeveless dress on an invisible dummy."""
    art.solid(path("M40.6 13 Q50 20 59.4 13 L58 30 L42 30 L40.6 13"), darker(color, 0.45))
    shoulders = (
        "M50 24 Q43 24 41.6 22 L40.2 8.5 L38 8.5 L37.6 22 Q36 27 35.4 31"
        if straps
        else "M50 25 Q42 23 41 10.5 Q37.5 9.8 34.6 12 Q36.6 22 34.4 31"
    )
    bodice = art.shape(symmetric(f"{shoulders} Q37 39 39.4 46 Q45 47.4 50 47.4"))
    art.fill(bodice, color)
    left = 50 - flare
    flounce = art.shape(
        symmetric(
            f"M50 45 L39.6 45 C37 57 {left + 5} 70 {left} {hem - 2} "
            f"Q{left + 3} {hem + 1.6} {left + 7} {hem} "
            f"Q{left + 11} {hem + 3.4} {left + 15} {hem + 1} Q{left + 19} {hem + 4} 50 {hem + 1.5}"
        )
    )
    art.fill(flounce, color)
    if dots:
        _dotted(art, bodice | flounce, dots)
    for part in (bodice, flounce):
        art.light(part, 6, 0.5)
        art.grain(part, 0.04)
    for start, end in ((42, -17), (44.5, -10.5), (48, -3.5), (52.5, 4), (55.5, 10.5), (58, 17)):
        reach = 50 + end * flare / 22
        art.crease(
            path(f"M{start} 48 C{start} 60 {reach} {hem - 20} {reach} {hem}"), flounce, 2.4, 0.3
        )
    for dart in both_sides("M43.4 46 Q42.6 38 43.2 33"):
        art.crease(dart, bodice, 1, 0.25)
    if belt:
        ribbon = art.solid(
            path("M39 44.4 Q50 46.6 61 44.4 L60.8 48.6 Q50 50.6 39.2 48.6 L39 44.4"), belt, 1.6, 0.6
        )
        art.crease(path("M44 45.6 L44 49.4"), ribbon, 0.8, 0.3)
    else:
        art.seam(path("M39.4 46 Q50 48.2 60.6 46"), darker(color, 0.3))


def jeans(
    art: Drawing,
    color: Color,
    *,
    ankle: float = 13,
    fade: float = 0.35,
    cuffs: bool = False,
    ripped: bool = False,
    thread: Color = GUM,
) -> None:
    """A pair of jeans from the front."""
    outer = 41 - ankle
    art.solid(path("M34 8.6 Q50 6.4 66 8.6 L65 12 Q50 13.6 35 12 L34 8.6"), darker(color, 0.5))
    outline = symmetric(
        f"M50 11.4 Q41 11.4 34 8.6 C32 17 29 25 28.4 34 C28 55 {outer + 1} 70 {outer} 92 "
        f"Q{outer + ankle / 2} 94 {outer + ankle} 93 C{outer + ankle + 1} 75 47 58 50 38.5"
    )
    body = art.shape(outline)
    art.fill(body, color)
    art.light(body, 6, 0.6)
    for thigh, knee in zip(
        both_sides("M37.6 30 Q36.6 44 36.4 58"), both_sides("M36 62 Q35.6 72 35.2 82"), strict=True
    ):
        art.glow(art.stroke(thigh, 5), body, 6, fade)
        art.glow(art.stroke(knee, 2.4), body, 5, fade * 0.5)
    twill = ((art.across * 0.8 + art.down) % 0.9) < 0.45
    art.glow(twill & body, body, 0.2, -0.06)
    art.grain(body, 0.06)
    for fold in (
        *both_sides("M48 41 Q42 41 38 38"),
        *both_sides("M48.5 44 Q44 46 40 45"),
        *both_sides(f"M{outer + 2} 80 Q{outer + 6} 82 {outer + 10} 80"),
        *both_sides(f"M{outer + 2} 85 Q{outer + 7} 87 {outer + 11} 84"),
        *both_sides("M31 62 Q36 64.5 41 62"),
    ):
        art.crease(fold, body, 1.5, 0.22)
    for inner in both_sides(f"M50 38.5 C47.4 58 {outer + ankle + 1} 75 {outer + ankle} 92"):
        art.glow(art.stroke(inner, 2), body, 4, -0.3)
    for side in both_sides("M33.4 17 Q40 20 43 14.6"):
        art.seam(side, darker(color, 0.5), 0.6)
    for side in both_sides("M33.2 18 Q40.6 21 43.9 14.8"):
        art.stitches(side, thread)
    art.seam(path("M50 12 L50 38.5"), darker(color, 0.45), 0.5)
    art.stitches(path("M54.4 15 L54.2 29 Q53.6 32 50.6 33"), thread)
    waist = art.shape(path("M34 8.6 Q50 14.2 66 8.6 L67 13.2 Q50 18.4 33 13.2 L34 8.6"))
    waist &= body
    art.fill(waist, color)
    art.light(waist, 1.6, 0.5)
    art.stitches(path("M33.6 12.4 Q50 17.4 66.4 12.4"), thread)
    for loop in (
        "M36.8 9 L36.2 14.8",
        "M44.4 10.8 L44.2 16",
        "M63.2 9 L63.8 14.8",
        "M57.4 10.6 L57.6 16",
    ):
        art.cord(path(loop), 1.3, lighter(color, 0.08), 0.5)
    art.solid(ellipse(50, 13.8, 1.1, 1.1), GUM, 0.8, 0.8)
    if cuffs:
        for cuff in both_sides(
            f"M{outer - 0.6} 86 Q{outer + ankle / 2} 88 {outer + ankle + 1} 87 "
            f"L{outer + ankle + 0.6} 93.4 Q{outer + ankle / 2} 94.8 {outer - 0.8} 92.6"
        ):
            art.grain(art.solid(cuff, lighter(color, 0.5), 2, 0.5))
    if ripped:
        _rip(art, lighter(color, 0.8))


def _rip(art: Drawing, thread: Color) -> None:
    """Frayed holes in one leg."""
    for y, reach in ((57, 4.4), (60, 3.4), (33, 2.6)):
        hole = art.solid(ellipse(36.4, y, reach, 1), thread, 0.8, -0.8)
        art.crease(path(f"M{36.4 - reach} {y} L{36.4 + reach} {y}"), hole, 0.3, 0.5)


def skirt(
    art: Drawing,
    color: Color,
    *,
    waist: float = 15,
    flare: float = 30,
    hem: float = 76,
    pleats: int = 9,
    trim: Color | None = None,
    checks: Color | None = None,
) -> None:
    """A skirt with a waistband, pleated."""
    top, left = 24.0, 50 - flare
    art.solid(ellipse(50, top - 3.4, waist - 0.6, 1.8), darker(color, 0.5))
    edges = [(step / pleats * 2 - 1) for step in range(pleats + 1)]
    zigzag = [(50 + edge * flare, hem + 3 * (1 - edge * edge)) for edge in edges]
    scallops = " ".join(
        f"Q{(ax + bx) / 2} {max(ay, by) + 2.2} {bx} {by}" for (ax, ay), (bx, by) in pairwise(zigzag)
    )
    right = 50 + flare
    body = art.shape(
        path(
            f"M{50 - waist} {top} C{48 - waist} {top + 16} {left + 3} {hem - 20} {left} {hem} "
            f"{scallops} C{right - 3} {hem - 20} {52 + waist} {top + 16} {50 + waist} {top}"
        )
    )
    art.fill(body, color)
    if checks:
        for position in (art.across, art.down):
            art.fill(body & (position % 9 > 8), checks)
            art.glow(body & (position % 9 < 3.4), body, 0.3, -0.22)
    if trim:
        arch = hem + 3 - 3 * ((art.across - 50) / np.float32(flare)) ** 2
        art.fill(body & (art.down > arch - 5) & (art.down < arch - 2.6), trim)
    art.light(body, 6, 0.55)
    art.grain(body, 0.04)
    for edge in edges[1:-1]:
        start, end, floor = 50 + edge * waist, 50 + edge * flare, hem + 3 * (1 - edge * edge)
        art.crease(
            path(f"M{start} {top + 3} Q{start + edge * 4} {hem - 26} {end} {floor}"), body, 2, 0.42
        )
    band = art.solid(
        path(
            f"M{50 - waist} {top - 4} Q50 {top - 1} {50 + waist} {top - 4} "
            f"L{50.6 + waist} {top + 2} Q50 {top + 5} {49.4 - waist} {top + 2}"
        ),
        trim or darker(color, 0.12),
        2,
        0.5,
    )
    art.grain(band, 0.03)
    art.stitches(
        path(f"M{49.8 - waist} {top + 1.2} Q50 {top + 4.2} {50.2 + waist} {top + 1.2}"),
        darker(color, 0.4),
    )


def sneaker(
    art: Drawing,
    color: Color,
    *,
    accent: Color = WHITE,
    sole: Color = WHITE,
    outsole: Color | None = None,
    laces: Color = WHITE,
    high: bool = False,
    rubber_toe: bool = False,
    mark: str = "",
) -> None:
    """A laced shoe from its side, the toe to the left."""
    art.stand(8, 93, 78)
    lift: float = 12 if high else 0
    ankle = 41 - lift
    tongue = art.solid(
        path(
            f"M47 50 Q50 {40 - lift} {53 - lift / 6} {33 - lift} "
            f"Q58 {31 - lift} 62 {36 - lift} L64 52 L47 50"
        ),
        lighter(color, 0.12),
        3,
    )
    art.grain(tongue)
    art.solid(
        path(f"M56 52 Q64 {44 - lift} 72 {43 - lift} L88 {40 - lift} L88 56 L56 56"),
        darker(color, 0.5),
        2,
    )
    upper = art.solid(
        path(
            f"M6.6 69 C6.4 61 13 57.6 22 56 C33 54 41 48.6 48 43 L{57 - lift / 4} {36.4 - lift} "
            f"C60 {44 - lift} 70 {48 - lift} 78 {46 - lift} "
            f"C82 {45 - lift} 84 {42 - lift} 87.4 {ankle - 2} "
            f"C91 {ankle - 1} 90.6 {ankle + 4} 90.4 51 C90.4 58 93.4 63 93 70 L6.6 70"
        ),
        color,
        7,
        0.6,
    )
    art.grain(upper, 0.03)
    if mark == "saddle":
        saddle = art.shape(path("M42 48 Q50 56 46 70 L64 70 Q70 58 62 44 L42 48")) & upper
        art.fill(saddle, accent)
        art.light(saddle, 2, 0.4)
        for edge in ("M43.4 51 Q50 58 47.4 66", "M62.4 48 Q67.6 58 63 66"):
            art.stitches(path(edge), darker(accent, 0.3))
    elif mark == "zigzag":
        zigzag = path("M44 64 L51 57 L56 63 L63 55.6 L68 61.6 L75 54")
        art.rim(zigzag, 2.2, accent, upper)
    elif mark == "dots":
        for x, y in ((48.0, 62.0), (55.0, 60.4), (62, 58.6), (69, 56.6)):
            art.solid(ellipse(x, y, 2, 2), accent, 0.8, 0.4)
    heel = art.shape(path("M80 70 Q80 58 86 52 L92 49 L95 70 L80 70")) & upper
    art.fill(heel, accent)
    art.light(heel, 3, 0.6)
    art.stitches(path("M79 70 Q79 58 85.4 51"), darker(color, 0.35))
    vamp = art.shape(path("M5 70 L5 60 Q15 53 27 55 Q33 60 32 70 L5 70")) & upper
    if rubber_toe:
        art.fill(vamp, sole)
    art.light(vamp, 3, 0.5)
    art.stitches(path("M28.4 55 Q34.4 60 33.4 70"), darker(color, 0.35))
    facing = (
        art.shape(
            path(
                f"M36 51 L{58 - lift / 4} {34 - lift} "
                f"L{63 - lift / 4} {43 - lift} L56 53 L43 58 Q39 56 36 51"
            )
        )
        & upper
    )
    art.fill(facing, mix(color, accent, 0.15))
    art.light(facing, 1.6, 0.5)
    rows = 7 if high else 5
    for row in range(rows):
        climb = row / (rows - 1)
        x, y = 40 + climb * (17 - lift / 4), 51.4 - climb * (12.6 + lift)
        art.cord(path(f"M{x - 0.6} {y - 1.6} Q{x + 3} {y - 1} {x + 5} {y + 3.6}"), 1.7, laces)
    art.crease(path("M33 56 Q36 61 35 66"), upper, 1.6, 0.25)
    art.crease(path("M38 59 Q41 63 40 67"), upper, 1.6, 0.2)
    collar = path(
        f"M{58 - lift / 4} {37.6 - lift} C61 {45 - lift} 70 {49 - lift} 78 {47 - lift} "
        f"C82 {46 - lift} 84 {43 - lift} 87 {ankle}"
    )
    art.cord(collar, 2.2, mix(color, accent, 0.2), 0.5)
    foam = art.solid(
        path(
            "M5.4 67 Q5 65.4 7 65.6 C28 69 66 70 93 66 Q95 66 94.8 68 "
            "L94 75 Q93 77.6 90 77.6 L13 77.6 Q6.4 77 5.4 67"
        ),
        sole,
        3,
        0.55,
    )
    art.seam(path("M6 69 C28 72 66 73 94.4 69.4"), darker(sole, 0.22), 0.4)
    tread = foam & art.shape(path("M3 75 C30 76.6 70 76.6 97 74.6 L97 80 L3 80"))
    art.fill(tread, outsole or darker(sole, 0.35))


def heel(
    art: Drawing,
    color: Color,
    *,
    rise: float = 0,
    strap: bool = False,
    bow: bool = False,
    platform: float = 0,
    lining: Color = BEIGE,
) -> None:
    """A high-heeled shoe from its side, the toe to the left."""
    floor = 82 + platform
    seat = 47 - rise
    art.stand(8, 48, floor + 0.5)
    art.stand(80, 90, floor + 0.5)
    if strap:
        art.cord(ellipse(79, seat - 17, 10, 3.4, 180, 360), 1.5, darker(color, 0.25))
    stiletto = art.solid(
        path(
            f"M73 {seat + 8} C80 {seat + 6} 86 {seat + 2} 91 {seat - 2} "
            f"C91.6 {seat + 12} 88 66 87.4 {floor} "
            f"L84 {floor} C83.6 70 80 {seat + 18} 73 {seat + 8}"
        ),
        darker(color, 0.1),
        2.4,
        0.7,
    )
    art.fill(stiletto & (art.down > floor - 1.6), darker(color, 0.6))
    if platform:
        slab = f"M8 77 L8.6 {floor - 2} Q9 {floor} 13 {floor} L34 {floor} Q45 {floor} 51 77 L8 77"
        art.solid(path(slab), darker(color, 0.2), 2.4, 0.7)
    else:
        art.solid(path("M9 79 Q9 82 14 82 L34 82 Q44 82 52 76 L9 78"), lining, 1, 0.4)
    art.solid(
        path(
            f"M28 67 Q38 61 46 66 C58 64 74 {seat + 2} 89 {seat - 15} L89 {seat - 11} "
            f"C80 {seat - 3} 72 {seat + 8} 62 {seat + 17} C52 72 40 74 34 68"
        ),
        lighter(lining, 0.25),
        2,
    )
    upper = art.solid(
        path(
            f"M6.8 78.6 C12 73 20 65.4 28.4 62 C31 61 33 61.6 34.6 63.6 "
            f"C40 70.6 52 68 62 {seat + 13} C72 {seat + 4} 80 {seat - 7} 88.4 {seat - 17} "
            f"Q91 {seat - 16} 91.2 {seat - 8} Q92.4 {seat} 90.6 {seat + 4} "
            f"C84 {seat + 9} 73 {seat + 10} 63 {seat + 21} C55 77 48 80.6 36 80.6 "
            "L11 80.6 Q5.6 80.4 6.8 78.6"
        ),
        color,
        5,
        0.75,
    )
    art.glow(art.stroke(path("M20 71.4 Q26 67 30 66"), 1), upper, 2.6, 0.6)
    shank = path(f"M66 {seat + 15} Q76 {seat + 6} 84 {seat - 3}")
    art.glow(art.stroke(shank, 0.8), upper, 2.4, 0.35)
    if strap:
        art.cord(ellipse(79, seat - 17, 10, 3.4, 0, 180), 1.5, color)
        art.solid(box(72.6, seat - 16, 75.6, seat - 12, 0.6), GOLD, 1)
    if bow:
        for wing in (
            "M31 62 Q24 54 21 58 Q20 63 31 63",
            "M31 62 Q38 53 41.6 57 Q42 63 31 63",
        ):
            art.solid(path(wing), lighter(color, 0.08), 2, 0.7)
        art.solid(ellipse(31, 62, 1.8, 1.8), color, 1, 0.7)


def handbag(
    art: Drawing,
    color: Color,
    *,
    top: float = 26,
    base: float = 33,
    metal: Color = GOLD,
    flap: Color | None = None,
    quilted: bool = False,
    lower: Color | None = None,
    arch: float = 16,
) -> None:
    """A handbag with two handles, standing."""
    art.stand(50 - base, 50 + base, 87.6)
    for rear in (True, False):
        spread, peak = (13.4, arch - 3) if rear else (15, arch)
        if rear:
            grip = path(
                f"M{50 - spread} 46 C{50 - spread} {peak} {50 + spread} {peak} {50 + spread} 46"
            )
            art.cord(grip, 2.6, darker(color, 0.4))
            continue
        body = art.shape(
            symmetric(
                f"M50 43.4 Q{50 - top / 2} 43.4 {52 - top} 42.6 Q{50 - top} 42.6 {49.6 - top} 45 "
                f"L{50 - base} 82 Q{49.6 - base} 87.6 {54 - base} 87.6 Q50 88.6 50 88.6"
            )
        )
        art.fill(body, color)
        if lower:
            art.fill(body & (art.down > 68), lower)
        art.light(body, 7, 0.6)
        if quilted:
            for slope in (1, -1):
                groove = body & ((art.across + slope * art.down) % 8 < 0.55)
                art.glow(groove, body, 0.7, -0.75)
        art.grain(body, 0.06)
        art.glow(art.stroke(path(f"M{54 - top} 50 L{54.6 - base} 80"), 2), body, 6, 0.25)
        art.stitches(
            path(f"M{52 - top} 46 L{52.4 - base} 84 Q50 86.6 {47.6 + base} 84 L{48 + top} 46"),
            darker(color, 0.35),
        )
        if lower:
            art.stitches(path(f"M{51.4 - base} 69 L{48.6 + base} 69"), darker(lower, 0.35))
        grip = path(
            f"M{50 - spread} 54 L{50 - spread} 44 "
            f"C{50 - spread} {peak} {50 + spread} {peak} {50 + spread} 44 L{50 + spread} 54"
        )
        art.cord(grip, 2.8, darker(color, 0.06))
        for x in (50 - spread, 50 + spread):
            art.solid(ellipse(x, 46, 2, 2), metal, 1.4, 0.8)
            art.solid(ellipse(x, 46, 0.9, 0.9), darker(metal, 0.5), 0.4, 0)
    if flap:
        cover = art.solid(
            symmetric(
                f"M50 42.6 L{51 - top} 42.6 Q{49 - top} 43 {49.4 - top} 48 "
                f"C{50 - top} 60 {66 - top} 64 50 64"
            ),
            flap,
            4,
            0.6,
        )
        art.grain(cover, 0.06)
        art.stitches(
            symmetric(
                f"M50 44 L{53 - top} 44 L{51.4 - top} 48 C{52 - top} 58 {67 - top} 62.4 50 62.4"
            )[2:-2],
            darker(flap, 0.35),
        )
        art.solid(box(46.4, 59, 53.6, 66.6, 1.2), metal, 1.6, 0.8)
        art.solid(ellipse(50, 62.8, 1.4, 1.4), darker(metal, 0.45), 0.6, 0)
    else:
        art.solid(box(47, 49, 53, 52.4, 0.8), metal, 1.2, 0.8)


def backpack(
    art: Drawing,
    color: Color,
    *,
    pocket: Color | None = None,
    accent: Color = TAN,
    lid: bool = False,
    width: float = 25,
    base: Color | None = None,
) -> None:
    """A backpack from the front, standing."""
    front = pocket or color
    art.stand(50 - width, 50 + width, 91)
    for strap in both_sides(
        f"M40 18 Q{44 - width} 22 {47 - width} 40 Q{44.6 - width} 60 {48.6 - width} 84"
    ):
        art.cord(strap, 4.6, darker(color, 0.35), 0.5)
    art.cord(path("M43 16 Q43 6.6 50 6.6 Q57 6.6 57 16"), 2.4, darker(accent, 0.1))
    for side in both_sides(
        f"M{52 - width} 62 Q{46.4 - width} 62 {46.6 - width} 68 "
        f"L{47 - width} 84 Q{48 - width} 88 {54 - width} 88"
    ):
        art.grain(art.solid(side, darker(front, 0.2), 3))
    left = 50 - width
    body = art.shape(
        symmetric(
            f"M50 11.6 C36 11.6 {left + 2} 15 {left + 0.6} 33 "
            f"Q{left - 1} 60 {left} 84 Q{left + 0.4} 91 {left + 7} 91 L50 91.4"
        )
    )
    art.fill(body, color)
    if base:
        art.fill(body & (art.down > 78), base)
    art.light(body, 8, 0.6)
    art.grain(body, 0.06)
    zip_line = path(f"M{left + 5} 47 Q{left + 4} 19 50 18 Q{95 - left} 19 {95 - left} 47")
    if lid:
        cover = art.solid(
            symmetric(
                f"M50 11.2 C36 11.2 {left + 1} 14 {left - 0.6} 33 "
                f"Q{left - 0.6} 44 {left + 1} 46 Q{left + 14} 49.6 50 49.6"
            ),
            front,
            6,
            0.55,
        )
        art.grain(cover, 0.06)
        for buckle in both_sides("M40 34 L40 60"):
            art.cord(buckle, 2.8, accent)
        for clasp in (40, 60):
            art.solid(box(clasp - 2.2, 53, clasp + 2.2, 57, 0.8), SILVER, 1, 0.8)
    else:
        art.cord(zip_line, 1.5, darker(color, 0.4), 0.4)
        art.stitches(zip_line, lighter(color, 0.35), 0.5)
        art.cord(path(f"M{95 - left} 46 L{95.4 - left} 51.6"), 1.3, accent)
        label = art.solid(box(44, 34, 56, 42, 1.2), accent, 1.2, 0.4)
        art.stitches(path("M45 35.2 L55 35.2 L55 40.8 L45 40.8 L45 35.2"), lighter(accent, 0.4))
        art.grain(label, 0.05)
    pouch = art.solid(
        symmetric(
            f"M50 55 L{left + 9} 55 Q{left + 4.6} 55 {left + 4.6} 60 "
            f"L{left + 4.6} 82 Q{left + 5} 87 {left + 10} 87 L50 87.4"
        ),
        front,
        5,
        0.6,
    )
    art.grain(pouch, 0.06)
    art.cord(path(f"M{left + 7} 62.6 Q50 60.4 {93 - left} 62.6"), 1.4, darker(front, 0.4), 0.4)
    art.cord(path(f"M{91 - left} 63 L{91 - left} 68"), 1.3, accent)
    art.crease(path(f"M{left + 8} 84 Q50 80 {92 - left} 84"), pouch, 2.4, 0.2)


def cap(
    art: Drawing,
    color: Color,
    *,
    visor: Color | None = None,
    badge: Color | None = None,
    mesh: Color | None = None,
    mark: str = "disc",
    crown: float = 0,
) -> None:
    """A baseball cap, the visor to the left."""
    brim = visor or color
    top = 25 - crown
    art.solid(path("M30 63 Q56 72 87 62 L86 57 Q58 66 30 59 L30 63"), darker(color, 0.55), 2)
    dome = art.shape(
        path(
            f"M27.6 62 C26 44 34 {top + 1} 56 {top} "
            f"C78 {top} 88.4 44 87.6 62.4 Q70 68 52 65.6 Q38 63 27.6 62"
        )
    )
    art.fill(dome, color)
    if mesh:
        rear = dome & art.shape(
            path(f"M56 {top - 4} Q66 44 62 70 L94 70 L94 {top - 4} L56 {top - 4}")
        )
        art.fill(rear, mesh)
        holes = (art.across % 2 < 1) & (art.down % 2 < 1)
        art.glow(rear & holes, rear, 0.3, -0.45)
    art.light(dome, 12, 0.7)
    art.grain(dome, 0.05)
    for seam in (
        f"M56 {top} Q67 44 62.4 66",
        f"M56 {top} Q36 {top + 8} 31 60",
        f"M56 {top} Q82 {top + 8} 83 63",
    ):
        art.crease(path(seam), dome, 0.8, 0.35)
        art.stitches(path(seam), lighter(color, 0.22))
    art.glow(art.shape(ellipse(46, top + 9, 9, 4)), dome, 7, 0.3)
    art.solid(ellipse(56, top + 0.4, 2.6, 1.3), brim, 1, 0.6)
    for x, y in ((47, top + 9), (69, top + 9)):
        art.solid(ellipse(x, y, 0.8, 0.8), darker(color, 0.5), 0.4, 0)
    if badge and mark == "disc":
        patch = art.solid(ellipse(45.6, 49, 6.6, 7.4), badge, 1.2, 0.5)
        art.solid(star(45.4, 49.2, 4.4), mix(badge, color, 0.85), 0.5, 0.2)
        art.grain(patch, 0.03)
    elif badge and mark == "bolt":
        bolt = "M49 39 L38.6 51 L44.4 51 L41 60.4 L53 47.4 L47 47.4 L49 39"
        art.solid(path(bolt), badge, 0.8, 0.4)
    elif badge:
        art.solid(path("M37 56 L44 44 L47.4 49.6 L49.6 46.4 L55 56.8 L37 56"), badge, 0.8, 0.4)
    peak = art.solid(
        path(
            "M28 58 C20 60 9 63.4 5.4 70.4 Q5 74 9.6 73.4 "
            "C22 68.6 40 67.6 55 69.8 Q58 70 57.4 66.4 Q46 63 28 58"
        ),
        brim,
        4,
        0.6,
    )
    art.grain(peak, 0.04)
    for row in range(3):
        art.stitches(
            path(
                f"M{27 - row * 4.6} {60.6 + row * 1.6} "
                f"Q{36 - row * 3} {63.4 + row * 1.4} {53 - row * 1.6} {66.6 + row}"
            ),
            darker(brim, 0.25),
        )
    art.crease(path("M28 59.6 Q42 63 57 66.6"), dome, 1.6, 0.5)


def watch(
    art: Drawing,
    strap: Color,
    *,
    case: Color = SILVER,
    dial: Color = WHITE,
    hands: Color = BLACK,
    links: bool = False,
    subdials: bool = False,
    radius: float = 20,
    hour: float = 10.15,
) -> None:
    """A wristwatch from the front, its strap laid straight."""
    bands = [
        art.solid(path(band), strap, 4, 0.6)
        for band in (
            "M40.4 34 L41.6 5 Q42 3 44 3 L56 3 Q58 3 58.4 5 L59.6 34",
            "M40.4 66 L41.8 92 Q43 97 50 97.4 Q57 97 58.2 92 L59.6 66",
        )
    ]
    if links:
        _bracelet(art, bands)
    else:
        _leather_strap(art, bands, strap)
    for lug in ("M38.6 38 L40 27.4", "M38.6 62 L40 72.6"):
        for side in both_sides(lug):
            art.cord(side, 3.6, case)
    art.solid(box(49 + radius, 47.4, 53.6 + radius, 52.6, 1), darker(case, 0.1), 1.6, 0.8)
    art.solid(ellipse(50, 50, radius, radius), case, 3.4, 0.9)
    art.solid(ellipse(50, 50, radius - 2.4, radius - 2.4), darker(case, 0.25), 1.2, -0.8)
    face = art.solid(ellipse(50, 50, radius - 3.2, radius - 3.2), dial, 4, -0.35)
    for minute in range(60):
        inner, width = (7.2, 0.9) if minute % 5 == 0 else (5.4, 0.25)
        art.seam(_spoke(minute / 60, radius - inner, radius - 4.4), hands, width)
    if subdials:
        for x, y in ((43, 50), (57, 50), (50, 57.4)):
            ring = art.solid(ellipse(x, y, 3.4, 3.4), mix(dial, hands, 0.18), 0.8, -0.5)
            art.fill(art.stroke(np.array([(x, y), (x + 1.4, y - 2)]), 0.3) & ring, hands)
    for share, length, width in ((hour / 12, radius - 11, 1.3), (hour % 1, radius - 6.6, 0.9)):
        hand = art.stroke(_spoke(share, -2, length), width)
        art.glow(np.roll(hand, (8, 4), (0, 1)), face, 1, -0.4)
        art.fill(hand, hands)
    art.fill(art.stroke(_spoke(0.58, -4, radius - 6), 0.35), RED)
    art.solid(ellipse(50, 50, 1.2, 1.2), hands, 0.6, 0.6)
    gleam = art.shape(path("M38 34 L46 32 L34 62 L31 52")) & face
    art.glow(gleam, face, 1.6, 0.22)


def _bracelet(art: Drawing, bands: Iterable[Mask]) -> None:
    """Draw the strap of a watch as polished metal links."""
    place = art.down % 3.4
    for band in bands:
        art.glow(band & (abs(art.across - 50) < 3.6), band, 0.8, 0.35)
        art.glow(band & (place < 0.5), band, 0.5, -0.8)
        art.glow(band & (place > 2.6), band, 0.8, 0.5)


def _leather_strap(art: Drawing, bands: Iterable[Mask], color: Color) -> None:
    """Draw the strap of a watch as stitched leather with holes."""
    for band in bands:
        art.grain(band, 0.09)
    for line in (*both_sides("M42.6 31 L43.4 6"), *both_sides("M42.6 69 L43.6 91")):
        art.stitches(line, lighter(color, 0.4))
    for row in range(4):
        art.solid(ellipse(50, 77 + row * 4.4, 0.8, 1), darker(color, 0.65), 0.4, 0)


def umbrella(art: Drawing) -> None:
    """An open umbrella: the subject of the awkward files, and of no product."""
    art.cord(path("M50 12 L50 84 Q50 92 57 92 Q63 92 63 85"), 2.4, BROWN)
    art.cord(path("M50 7 L50 14"), 1.6, CHARCOAL)
    ribs = (16.0, 27.5, 41.5, 58.5, 72.5, 84.0)
    for number, (left, right) in enumerate(pairwise(ribs)):
        panel = art.shape(
            path(
                f"M50 12 C{50 + (left - 50) * 0.75} 14 {left} 34 {left} 54 "
                f"Q{(left + right) / 2} 47.6 {right} 54 "
                f"C{right} 34 {50 + (right - 50) * 0.75} 14 50 12"
            )
        )
        art.fill(panel, (RED, CREAM)[number % 2])
        art.light(panel, 3, 0.5)
        art.grain(panel, 0.03)


def _striped(art: Drawing, part: Mask, color: Color, period: float) -> None:
    """Draw stripes across a part with the slope of a sleeve."""
    slope = art.down - abs(art.across - 50) * np.float32(0.25)
    art.fill(part & (slope % period > period * 0.6), color)
    art.light(part, 4, 0.4)


def _dotted(art: Drawing, part: Mask, color: Color) -> None:
    """Draw dots in staggered rows."""
    pitch = 6.0
    shifted = art.across + (art.down // pitch % 2) * np.float32(pitch / 2)
    x, y = shifted % pitch - pitch / 2, art.down % pitch - pitch / 2
    art.fill(part & (x * x + y * y < 1.1**2), color)


def _spoke(share: float, inner: float, outer: float) -> Points:
    """Return a line outwards from the middle; `share` is a fraction of the way round a clock."""
    turn = share * 2 * math.pi
    return np.array([(50 + r * math.sin(turn), 50 - r * math.cos(turn)) for r in (inner, outer)])
