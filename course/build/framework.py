"""The files of tinytorch/core: the reference from the sources, or stubs where the student's own work belongs."""

from course import curriculum
from course.build import regions
from course.build.cells import read_cells
from course.build.export import export_cells, export_notebook
from course.curriculum import Module


def available() -> list[Module]:
    """The modules that can be built: ready in the curriculum, and their source is here."""
    return [module for module in curriculum.modules() if module.ready and module.source.is_file()]


def reference(module: Module) -> str:
    """The module's file of the framework, with solutions."""
    return export_notebook(module.source)


def stubs(module: Module) -> str:
    """The same file with every solution replaced by an error that says where the student writes it."""
    header = f"The frame of {module.export}: module {module.slug} fills it in."
    return export_cells(read_cells(module.source), module.source, lambda source: _with_hints(source, module), header)


def without_solutions(text: str) -> str:
    """A file beside `core` without what it would tell of a module's solution."""
    return regions.replace(text, lambda _number, region: [f'{region.indent}raise NotImplementedError("of the reference only")'])


def _with_hints(source: str, module: Module) -> str:
    def hint(_number: int, region: regions.Region) -> list[str]:
        name = regions.owner(source, region)
        text = f'{name}() is yours to write: module {module.slug}, then "tito module export {module.number}"'
        return [f"{region.indent}raise NotImplementedError({text!r})"]

    return regions.replace(source, hint)
