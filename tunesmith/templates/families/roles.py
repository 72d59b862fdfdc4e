"""Families that name each turn's role between marks of their own."""

from dataclasses import replace

from tunesmith.templates.template import Template

COHERE = Template(
    name="cohere",
    prefix="{{bos}}",
    system="<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{content}}<|END_OF_TURN_TOKEN|>",
    user="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{content}}<|END_OF_TURN_TOKEN|>"
    "{{answer}}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    assistant="{{content}}{{eos}}",
)

BAILING = Template(
    name="bailing",
    system="<role>SYSTEM</role>{{content}}",
    user="<role>HUMAN</role>{{content}}{{answer}}<role>ASSISTANT</role>",
    observation="<role>OBSERVATION</role>{{content}}{{answer}}<role>ASSISTANT</role>",
    assistant="{{content}}{{eos}}",
    stop_words=("<|endoftext|>",),
)
BAILING_V2 = replace(
    BAILING,
    name="bailing_v2",
    system="<role>SYSTEM</role>{{content}}<|role_end|>",
    user="<role>HUMAN</role>{{content}}<|role_end|>{{answer}}<role>ASSISTANT</role>",
    observation="<role>OBSERVATION</role>\n<tool_response>\n{{content}}\n</tool_response><|role_end|>"
    "{{answer}}<role>ASSISTANT</role>",
    observation_separator="\n</tool_response>\n<tool_response>\n",
    assistant="{{content}}<|role_end|>{{eos}}",
    tool_format="ling",
)

GPT_OSS = Template(
    name="gpt_oss",
    default_system="You are ChatGPT, a large language model trained by OpenAI.",
    system="<|start|>system<|message|>{{content}}<|end|>",
    user="<|start|>user<|message|>{{content}}<|end|>{{answer}}<|start|>assistant",
    assistant="{{content}}{{eos}}",
    reasoning=True,
    thought_words=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)

GRANITE3 = Template(
    name="granite3",
    system="<|start_of_role|>system<|end_of_role|>{{content}}<|end_of_text|>\n",
    user="<|start_of_role|>user<|end_of_role|>{{content}}<|end_of_text|>\n"
    "{{answer}}<|start_of_role|>assistant<|end_of_role|>",
    assistant="{{content}}<|end_of_text|>\n",
)
GRANITE4 = replace(
    GRANITE3,
    name="granite4",
    default_system="You are Granite, developed by IBM. You are a helpful AI assistant.",
    observation="<|start_of_role|>tool<|end_of_role|>{{content}}<|end_of_text|>\n"
    "{{answer}}<|start_of_role|>assistant\n",
    stop_words=("<|end_of_text|>",),
)

MOONLIGHT = Template(
    name="moonlight",
    default_system="You are a helpful assistant provided by Moonshot-AI.",
    system="<|im_system|>system<|im_middle|>{{content}}<|im_end|>",
    user="<|im_user|>user<|im_middle|>{{content}}<|im_end|>{{answer}}<|im_assistant|>assistant<|im_middle|>",
    assistant="{{content}}<|im_end|>",
    stop_words=("<|im_end|>",),
    replace_eos=True,
)
KIMI_VL = replace(
    MOONLIGHT,
    name="kimi_vl",
    default_system="You are a helpful assistant",
    replace_eos=False,
    reasoning=True,
    thought_words=("◁think▷", "◁/think▷"),
)

MINIMAX1 = Template(
    name="minimax1",
    default_system="You are a helpful assistant.",
    system="<beginning_of_sentence>system ai_setting=assistant\n{{content}}<end_of_sentence>\n",
    user="<beginning_of_sentence>user name=user\n{{content}}<end_of_sentence>\n"
    "{{answer}}<beginning_of_sentence>ai name=assistant\n",
    observation="<beginning_of_sentence>tool name=tools\n{{content}}<end_of_sentence>\n"
    "{{answer}}<beginning_of_sentence>ai name=assistant\n",
    assistant="{{content}}<end_of_sentence>\n",
    tool_format="minimax1",
    stop_words=("<end_of_sentence>",),
)
MINIMAX2 = Template(
    name="minimax2",
    default_system="You are a helpful assistant. Your name is MiniMax-M2.1 and is built by MiniMax.",
    prefix="]~!b[",
    system="]~b]system\n{{content}}[e~[\n",
    user="]~b]user\n{{content}}[e~[\n{{answer}}]~b]ai\n",
    observation="]~b]tool\n<response>{{content}}</response>[e~[\n{{answer}}]~b]ai\n",
    observation_separator="</response>\n<response>",
    assistant="{{content}}[e~[\n",
    tool_format="minimax2",
    stop_words=("[e~[",),
    reasoning=True,
)

SEED_CODER = Template(
    name="seed_coder",
    default_system="You are an AI programming assistant, utilizing the Seed-Coder model, developed by ByteDance Seed, "
    "and you only answer questions related to computer science. For politically sensitive questions, security and "
    "privacy issues, and other non-computer science questions, you will refuse to answer.\n\n",
    system="{{bos}}system\n{{content}}{{eos}}",
    user="{{bos}}user\n{{content}}{{eos}}{{answer}}{{bos}}assistant\n",
    assistant="{{content}}{{eos}}",
)
SEED_OSS = replace(
    SEED_CODER,
    name="seed_oss",
    default_system="",
    function="{{bos}}\n{{content}}{{eos}}",
    tool_format="seed_oss",
    reasoning=True,
    thought_words=("<seed:think>", "</seed:think>"),
)

TELECHAT2 = Template(
    name="telechat2",
    default_system="你是中国电信星辰语义大模型，英文名是TeleChat，你是由中电信人工智能科技有限公司和中国电信人工智能研究院"
    "（TeleAI）研发的人工智能助手。",
    system="<_system>{{content}}",
    user="<_user>{{content}}{{answer}}<_bot>",
    assistant="{{content}}{{eos}}",
)
INDEX = Template(
    name="index",
    system="<unk>{{content}}",
    user="reserved_0{{content}}{{answer}}reserved_1",
    assistant="{{content}}{{eos}}",
)
YUAN = Template(
    name="yuan",
    user="{{content}}{{answer}}<sep>",
    assistant="{{content}}<eod>\n",
    stop_words=("<eod>",),
)
