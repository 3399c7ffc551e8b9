"""From scores and a training's log to one page; the only room that draws (extra `report`)."""

from medseg3d.extras import import_extra

for package in ("jinja2", "matplotlib"):
    import_extra(package, extra="report")
