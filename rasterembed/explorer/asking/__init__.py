"""Questions of the explorer's page: the models of requests, uploaded images, answers, and files for downloads."""
