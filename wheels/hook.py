"""Hatchling's hook: a wheel gets the library of kernels compiled ahead of time, and the tag of the system it is for."""

import os
import sys
import tempfile

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LibraryHook(BuildHookInterface):
    """Builds the library into a folder that lasts as long as the build."""

    def initialize(self, version, build_data):
        """Add the library to a wheel; an editable installation has none, since its sources change."""
        wanted = os.environ.get("STREAMKWS_TARGET", "")
        if version == "editable" or wanted == "none":
            return
        sys.path.insert(0, self.root)
        from streamkws.native.build import BuildError, build_library, this_target
        from streamkws.native.library import DESCRIPTION
        from streamkws.native.targets import TARGETS

        try:
            name = wanted or this_target()
        except BuildError as error:
            self.app.display_warning(f"a wheel without a library of compiled kernels: {error}")
            return
        self._folder = tempfile.TemporaryDirectory()
        library = build_library(os.path.join(self._folder.name, "library"), name)
        for file in (library, library.with_name(DESCRIPTION)):
            build_data["force_include"][str(file)] = f"streamkws/native/{file.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{TARGETS[name].wheel}"

    def finalize(self, version, build_data, artifact_path):
        """Delete the folder: the wheel is written."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
