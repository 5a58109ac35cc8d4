//! What githubrunner asks of GitHub.
