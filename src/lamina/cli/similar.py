"""lamina similar: find the training images whose features are most similar to an image's."""

from __future__ import annotations

from contextlib import ExitStack, closing

from lamina.cli.image_argument import choose_images
from lamina.cli.models import choose_run_data, load_predictor
from lamina.cli.options import Similar
from lamina.cli.output import check_output, save_sheet
from lamina.cli.terminal import Terminal
from lamina.data.image_inputs import decode_ahead
from lamina.insight.neighbors import SimilarImages, embed, find_similar

DRAWN_IMAGES = 200
HEADS = ("image", "similar image", "target", "similarity")


def run(options: Similar, terminal: Terminal) -> int:

    if options.output is not None:
        check_output(options.output, (".png",))
    drawn: list[SimilarImages] = []
    count = 0
    with ExitStack() as stack:
        images, _ = choose_images(options.images, terminal)
        run, predictor = load_predictor(options.run, options.net, options.device, terminal)
        model = predictor.model
        dataset = choose_run_data(run, options.data, terminal)
        with terminal.progress("embedding") as progress:
            searched = embed(model, dataset.train, progress)
        add = stack.enter_context(terminal.table(HEADS, texts=3))
        for chunk in stack.enter_context(closing(decode_ahead(images, predictor.input_format))):
            read = []
            for name, reason in zip(chunk.names, chunk.reasons, strict=True):
                if reason is None:
                    read.append(name)
                else:
                    terminal.report_problem(name, reason)
            for similar in find_similar(model, chunk.pixels, read, searched, options.top):
                for row in similar.table()[1]:
                    add((similar.image, *row))
                terminal.emit("similar", **similar.to_json())
                if options.output is not None and len(drawn) < DRAWN_IMAGES:
                    drawn.append(similar)
            count += len(read)
    if options.output is not None and drawn:
        from lamina.drawing.contact_sheet import build_similar_sheet  # loads matplotlib

        title = f"the most similar images of {dataset.name} by the features of {run.path.name}"
        rest = ""
        if count > len(drawn):
            rest = f"and {count - len(drawn):,} more, not drawn"
        save_sheet(build_similar_sheet(drawn, title, rest), options.output)
        terminal.remark(f"similar images: {options.output}")
    return 0
