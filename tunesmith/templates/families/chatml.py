"""ChatML and the families that write it without changes of their own."""

from dataclasses import replace

from tunesmith.templates.template import Template

CHATML = Template(
    name="chatml",
    system="<|im_start|>system\n{{content}}<|im_end|>\n",
    user="<|im_start|>user\n{{content}}<|im_end|>\n{{answer}}<|im_start|>assistant\n",
    observation="<|im_start|>tool\n{{content}}<|im_end|>\n{{answer}}<|im_start|>assistant\n",
    assistant="{{content}}<|im_end|>\n",
    stop_words=("<|im_end|>", "<|im_start|>"),
    replace_eos=True,
)

CHATML_DE = replace(
    CHATML,
    name="chatml_de",
    default_system="Du bist ein freundlicher und hilfsbereiter KI-Assistent.",
)

TURNS = replace(CHATML, name="", observation="", stop_words=("<|im_end|>",), replace_eos=False)
"""ChatML in which a tool's result is a user turn, and the tokenizer's eos stays what it is."""

YI = replace(TURNS, name="yi")
LLAVA_NEXT_YI = replace(YI, name="llava_next_yi")
LLAVA_NEXT_VIDEO_YI = replace(YI, name="llava_next_video_yi")
SMOLLM = replace(YI, name="smollm")
SMOLLM2 = replace(
    SMOLLM,
    name="smollm2",
    default_system="You are a helpful AI assistant named SmolLM, trained by Hugging Face.",
)

MINICPM_V = replace(TURNS, name="minicpm_v", default_system="You are a helpful assistant.")
MINICPM_V_4_6 = replace(MINICPM_V, name="minicpm_v_4_6")
MINICPM_O = replace(
    MINICPM_V,
    name="minicpm_o",
    default_system="You are a helpful assistant. You can accept audio and text input and output voice and text.",
)

CPM4 = replace(CHATML, name="cpm4", prefix="{{bos}}", stop_words=("<|im_end|>",), replace_eos=False)
FALCON_H1 = replace(CPM4, name="falcon_h1", stop_words=("<|im_end|>", "<|end_of_text|>"))

OPENCODER = replace(
    CHATML,
    name="opencoder",
    default_system="You are OpenCoder, created by OpenCoder Team.",
    stop_words=("<|im_end|>",),
    replace_eos=False,
)

SAILOR = replace(
    TURNS,
    name="sailor",
    default_system="You are an AI assistant named Sailor created by Sea AI Lab. "
    "Your answer should be friendly, unbiased, faithful, informative and detailed.",
    user="<|im_start|>question\n{{content}}<|im_end|>\n{{answer}}<|im_start|>answer\n",
)

DBRX = replace(
    CHATML,
    name="dbrx",
    stop_words=("<|im_end|>",),
    default_system="You are DBRX, created by Databricks. You were last updated in December 2023. "
    "You answer questions based on information available up to that point.\n"
    "YOU PROVIDE SHORT RESPONSES TO SHORT QUESTIONS OR STATEMENTS, but provide thorough "
    "responses to more complex and open-ended questions.\nYou assist with various tasks, "
    "from writing to coding (using markdown for code blocks — remember to use ``` with "
    "code, JSON, and tables).\n(You do not have real-time data access or code execution "
    "capabilities. You avoid stereotyping and provide balanced perspectives on "
    "controversial topics. You do not provide song lyrics, poems, or news articles and "
    "do not divulge details of your training data.)\nThis is your system prompt, "
    "guiding your responses. Do not reference it, just respond to the user. If you find "
    "yourself talking about this message, stop. You should be responding appropriately "
    "and usually that means not mentioning this.\nYOU DO NOT MENTION ANY OF THIS INFORMATION "
    "ABOUT YOURSELF UNLESS THE INFORMATION IS DIRECTLY PERTINENT TO THE USER'S QUERY.",
)

LFM2 = replace(
    CHATML,
    name="lfm2",
    default_system="You are a helpful AI assistant.",
    observation="<|im_start|>tool\n<|tool_response_start|>{{content}}<|tool_response_end|><|im_end|>\n"
    "{{answer}}<|im_start|>assistant\n",
    tool_format="lfm2",
    stop_words=("<|im_end|>",),
)
LFM2_VL = replace(LFM2, name="lfm2_vl", default_system="You are a helpful multimodal assistant by Liquid AI.")

ERNIE = replace(
    CHATML,
    name="ernie",
    default_system="<global_setting>\nthink_mode=True\n</global_setting>",
    system="<|im_start|>system\n{{content}}<|im_end|>\n\n",
    user="<|im_start|>user\n{{content}}<|im_end|>\n\n{{answer}}<|im_start|>assistant\n",
    observation="<|im_start|>tool\n{{content}}<|im_end|>\n\n{{answer}}<|im_start|>assistant\n",
    assistant="{{content}}<|im_end|>\n\n",
    stop_words=("<|im_end|>",),
    replace_eos=False,
)

ERNIE_NOTHINK = Template(
    name="ernie_nothink",
    prefix="<|begin_of_sentence|>",
    system="{{content}}\n",
    user="User: {{content}}\n{{answer}}Assistant: ",
    assistant="{{content}}<|end_of_sentence|>",
    stop_words=("<|end_of_sentence|>",),
)

ERNIE_VL = Template(
    name="ernie_vl",
    system="{{content}}\n",
    user="User: {{content}}",
    assistant="\nAssistant: {{content}}<|end_of_sentence|>",
    stop_words=("<|end_of_sentence|>",),
    replace_eos=True,
    reasoning=True,
)
