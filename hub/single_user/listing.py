"""A contents manager that lists a folder while its files come and go.

Jupyter's looks at each name of a folder twice; when a file is renamed or removed in between, it answers that the whole folder
is not there, and JupyterLab says "Directory not found" and leaves it. Saving a notebook under its first name does just that.
"""

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

ATTEMPTS = 5             # files that come and go all the time: then its error


class Contents(AsyncLargeFileManager):
    async def get(self, path, content=True, *rest, **options):
        for attempt in range(ATTEMPTS):
            try:
                return await super().get(path, content, *rest, **options)
            except HTTPError as error:
                if error.status_code != 404 or not content or attempt == ATTEMPTS - 1 or not await self.dir_exists(path):
                    raise
