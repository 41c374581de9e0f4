"""The worker: claims jobs, runs the bundle in a child process, makes the video. Never imported by the API."""
