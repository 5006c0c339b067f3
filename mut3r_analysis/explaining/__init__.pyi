from .explanation import explain as explain
from .looking import attention_at as attention_at
