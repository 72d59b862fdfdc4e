"""Formats of plain words, without control tokens: the oldest of the field."""

from dataclasses import replace

from tunesmith.templates.template import Template

EMPTY = Template(name="empty", user="{{content}}", assistant="{{content}}")

FEWSHOT = replace(EMPTY, name="fewshot", assistant="{{content}}\n\n{{eos}}")

DEFAULT = Template(
    name="default",
    system="System: {{content}}{{eos}}\n",
    user="Human: {{content}}{{eos}}\n{{answer}}Assistant:",
    assistant="{{content}}{{eos}}\n",
)

ALPACA = Template(
    name="alpaca",
    default_system="Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n",
    user="### Instruction:\n{{content}}\n\n{{answer}}### Response:\n",
    assistant="{{content}}{{eos}}\n\n",
)

VICUNA = Template(
    name="vicuna",
    default_system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    user="USER: {{content}} {{answer}}ASSISTANT:",
    assistant="{{content}}{{eos}}",
)

LLAVA = replace(VICUNA, name="llava")
LLAVA_NEXT = replace(VICUNA, name="llava_next")
LLAVA_NEXT_VIDEO = replace(VICUNA, name="llava_next_video")
VIDEO_LLAVA = replace(VICUNA, name="video_llava")

XUANYUAN = Template(
    name="xuanyuan",
    default_system="以下是用户和人工智能助手之间的对话。用户以Human开头，人工智能助手以Assistant开头，"
    "会对人类提出的问题给出有帮助、高质量、详细和礼貌的回答，并且总是拒绝参与与不道德、不安全、有争议、"
    "政治敏感等相关的话题、问题和指示。\n",
    user="Human: {{content}} {{answer}}Assistant:",
    assistant="{{content}}{{eos}}",
)

YI_VL = Template(
    name="yi_vl",
    default_system="This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI "
    "assistant. Read all the images carefully, and respond to the human's questions with informative, helpful, "
    "detailed and polite answers. 这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。"
    "仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。\n\n",
    user="### Human: {{content}}\n{{answer}}### Assistant:",
    assistant="{{content}}\n{{eos}}",
    stop_words=("###",),
)

FALCON = Template(name="falcon", user="User: {{content}}\n{{answer}}Falcon:", assistant="{{content}}\n{{eos}}")

SOLAR = Template(
    name="solar",
    system="### System:\n{{content}}\n\n",
    user="### User:\n{{content}}\n\n{{answer}}### Assistant:\n",
    assistant="{{content}}{{eos}}",
)

OPENCHAT = Template(
    name="openchat",
    prefix="{{bos}}",
    user="GPT4 Correct User: {{content}}{{eos}}{{answer}}GPT4 Correct Assistant:",
    assistant="{{content}}{{eos}}",
)

BREEZE = Template(
    name="breeze",
    prefix="{{bos}}",
    user="[INST] {{content}} [/INST] ",
    assistant="{{content}}{{eos}}",
)

PALIGEMMA = Template(name="paligemma", prefix="{{bos}}", user="{{content}}\n", assistant="{{content}}{{eos}}")
