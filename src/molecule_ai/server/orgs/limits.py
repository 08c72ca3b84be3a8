"""How large an organization document may be; each bound is met before memory or time is spent."""

MAX_DOCUMENT_BYTES = 5 * 1024 * 1024  # the body cap of POST /org/import; all included files together
MAX_PROMPT_BYTES = 1024 * 1024  # one prompt file
MAX_PROMPTS_BYTES = 10 * 1024 * 1024  # all prompt files of one document together
MAX_VALUES = 100_000  # after aliases and includes are expanded
MAX_NESTING = 64  # of values in values, over all files
MAX_INCLUDE_DEPTH = 16  # contract 06 §3.3
MAX_TREE_DEPTH = 16  # levels of the org chart
MAX_WORKSPACES = 1_000
MAX_PROBLEMS = 100  # reported at once; after the first few nobody reads on

MAX_NAME_CHARACTERS = 255
MAX_ROLE_CHARACTERS = 8_000  # contract 06 §3.3: published roles are several sentences long
MAX_MODEL_CHARACTERS = 100
MAX_DESCRIPTION_CHARACTERS = 8_000
MAX_MEMORY_BYTES = 100_000  # longer content is cut (contract 06 §3.3)
MAX_SCHEDULES = 200  # per workspace (contract 03 §2.5)
MAX_SCHEDULE_NAME_CHARACTERS = 200
MAX_SCHEDULE_PROMPT_BYTES = 64 * 1024
MAX_ACTION_CHARACTERS = 2_000  # the longest action an approval may name (contract 03 §4.2)
MAX_CONCURRENT_TASKS = 1_000
