"""The dialects by the names that `tool_format` takes.  Data: marks and sentences, nothing else."""

from tunesmith.templates.dialects.calls import JsonCalls, JsonListCalls, NamedCalls, XmlCalls
from tunesmith.templates.dialects.gemma4 import Gemma4Calls, Gemma4Tools
from tunesmith.templates.dialects.lfm2 import PythonCalls
from tunesmith.templates.dialects.prompts import JsonTools, ListedTools
from tunesmith.templates.tools import Dialect

_FUNCTIONS_IN_TAGS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_CALL_AS_JSON = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)

_LISTED = ListedTools(
    head="You have access to the following tools:\n",
    tail="Use the following format if using a tool:\n```\nAction: tool name (one of [{names}])\n"
    "Action Input: the input to the tool, in a JSON format representing the kwargs "
    '(e.g. ```{"input": "hello world", "num_beams": 5}```)\n```\n',
)
_ACTIONS = NamedCalls(before="Action: ", between="\nAction Input: ", separator="\n")

_GLM4 = JsonTools(
    head="你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具",
    before="\n\n## {name}\n\n",
    after="\n在调用上述函数时，请使用 Json 格式表示调用的参数。",
    tail="",
    shape="bare",
    indent=4,
)

_GLM4_MOE = JsonTools(
    head="\n\n" + _FUNCTIONS_IN_TAGS,
    before="\n",
    tail="\n</tools>\n\nFor each function call, output the function name and arguments within the following XML format:\n"
    "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>\n"
    "<arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>\n",
)

_LLAMA3 = JsonTools(
    head="Cutting Knowledge Date: December 2023\nToday Date: {date}\n\n"
    "You have access to the following functions. To call a function, please respond with JSON for a function call. "
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. '
    "Do not use variables.\n\n",
    after="\n\n",
    tail="",
    indent=4,
)

_MINIMAX1 = JsonTools(
    head="You are provided with these tools:\n<tools>\n",
    after="\n",
    tail="</tools>\n\nIf you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide "
    "tool-name and json-object of arguments, following the format below:\n<tool_calls>\n"
    '{"name": <tool-name-1>, "arguments": <args-json-object-1>}\n...\n</tool_calls>',
    shape="bare",
)

_MINIMAX2 = JsonTools(
    head="\n\n# Tools\n\nYou may call one or more tools to assist with the user query.\n"
    "Here are the tools available in JSONSchema format:\n\n<tools>",
    before="\n<tool>",
    after="</tool>",
    tail="\n</tools>\n\nWhen making tool calls, use XML format to invoke tools and pass parameters:\n\n"
    '<minimax:tool_call>\n<invoke name="tool-name-1">\n<parameter name="param-key-1">param-value-1</parameter>\n'
    '<parameter name="param-key-2">param-value-2</parameter>\n...\n</invoke>\n</minimax:tool_call>',
    shape="bare",
)

_QWEN3_5 = JsonTools(
    head="\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>",
    before="\n",
    tail="\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n"
    "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n"
    "</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within "
    "<tool_call></tool_call> XML tags\n- Required parameters MUST be specified\n"
    "- You may provide optional reasoning for your function call in natural language BEFORE the function call, "
    "but NOT after\n- If there is no function call available, answer the question like normal with your current "
    "knowledge and do not tell the user about function calls\n</IMPORTANT>",
    shape="bare",
)

_SEED_OSS = JsonTools(
    head="system\nYou are Doubao, a helpful AI assistant. You may call one or more functions to assist with the user "
    "query.Tool List:\nYou are authorized to use the following tools (described in JSON Schema format). Before "
    "performing any task, you must decide how to call them based on the descriptions and parameters of these tools.\n",
    tail="\n工具调用请遵循如下格式:\n<seed:tool_call>\n<function=example_function_name>\n"
    "<parameter=example_parameter_1>value_1</parameter>\n<parameter=example_parameter_2>This is the value for the "
    "second parameter\nthat can span\nmultiple lines</parameter>\n</function>\n</seed:tool_call>\n",
    shape="bare list",
)

_TAGGED = JsonCalls(before="<tool_call>\n", after="\n</tool_call>")

_ALL = (
    Dialect("default", _LISTED, _ACTIONS),
    Dialect("gemma4", Gemma4Tools(), Gemma4Calls()),
    Dialect("glm4", _GLM4, NamedCalls(before="", between="\n", separator="<|assistant|>")),
    Dialect(
        "glm4_moe",
        _GLM4_MOE,
        XmlCalls(
            head="<tool_call>",
            after_name="",
            before_key="\n<arg_key>",
            after_key="</arg_key>\n<arg_value>",
            after_value="</arg_value>",
            tail="",
        ),
    ),
    Dialect(
        "lfm2",
        JsonTools(head="List of tools: <|tool_list_start|>", tail="<|tool_list_end|>", shape="bare list"),
        PythonCalls(head="<|tool_call_start|>[", tail="]<|tool_call_end|>"),
    ),
    Dialect(
        "ling",
        JsonTools(head=_FUNCTIONS_IN_TAGS, before="\n", tail=_CALL_AS_JSON + "\ndetailed thinking off"),
        _TAGGED,
    ),
    Dialect("llama3", _LLAMA3, JsonListCalls(arguments="parameters", single_bare=True)),
    Dialect("minimax1", _MINIMAX1, JsonCalls(head="<tool_calls>\n", before="", after="", tail="\n</tool_calls>")),
    Dialect(
        "minimax2",
        _MINIMAX2,
        XmlCalls(
            head='<invoke name="',
            after_name='">',
            before_key='\n<parameter name="',
            after_key='">',
            after_value="</parameter>",
            tail="\n</invoke>",
        ),
    ),
    Dialect(
        "mistral",
        JsonTools(head="[AVAILABLE_TOOLS] ", tail="[/AVAILABLE_TOOLS]", shape="wrapped list"),
        JsonListCalls(),
    ),
    Dialect("phi4_mini", JsonTools(head="<|tool|>", tail="<|/tool|>", shape="source"), _ACTIONS),
    Dialect("qwen", JsonTools(head="\n\n" + _FUNCTIONS_IN_TAGS, before="\n", tail=_CALL_AS_JSON), _TAGGED),
    Dialect(
        "qwen3_5",
        _QWEN3_5,
        XmlCalls(
            head="<tool_call>\n<function=",
            after_name=">",
            before_key="\n<parameter=",
            after_key=">\n",
            after_value="\n</parameter>",
            tail="\n</function>\n</tool_call>",
        ),
    ),
    Dialect(
        "seed_oss",
        _SEED_OSS,
        XmlCalls(
            head="\n<seed:tool_call>\n<function=",
            after_name="",
            before_key="\n<parameter=",
            after_key=">",
            after_value="</parameter>",
            tail="\n</function>\n</seed:tool_call>",
        ),
    ),
)

DIALECTS = {dialect.name: dialect for dialect in _ALL}
