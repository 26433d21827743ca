"""Colors and matplotlib settings of all figures."""

OURS_COLOR = "#0f766e"
OTHER_COLOR = "#94a3b8"
WRONG_COLOR = "#dc2626"
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.titleweight": "bold",
    "savefig.bbox": "tight",
}
