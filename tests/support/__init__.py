"""What the tests stand on: real servers, real worker processes, waiting, jobs and books."""
