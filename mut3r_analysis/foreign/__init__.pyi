from .attachment import Attachment as Attachment
from .attachment import attach as attach
from .tokens import Tokens as Tokens
