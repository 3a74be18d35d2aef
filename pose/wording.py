"""How an error of somebody else's code is worded inside of a message of ours."""


def in_a_line(error: BaseException, most: int = 300) -> str:
    """The first line of what an error says, at most so many letters of it, or its name where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:most] if text else type(error).__name__
