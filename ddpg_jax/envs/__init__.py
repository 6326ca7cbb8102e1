"""Where the agent lives: lanes of gymnasium environments, in this process or in workers."""
