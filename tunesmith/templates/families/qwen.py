"""Qwen and the families built on it: ChatML with Qwen's tools; from the third on, thoughts."""

from dataclasses import replace

from tunesmith.templates.families.chatml import TURNS

TOOLS = replace(
    TURNS,
    observation="<|im_start|>user\n<tool_response>\n{{content}}\n</tool_response><|im_end|>\n"
    "{{answer}}<|im_start|>assistant\n",
    observation_separator="\n</tool_response>\n<tool_response>\n",
    tool_format="qwen",
    replace_eos=True,
)

QWEN = replace(
    TOOLS,
    name="qwen",
    default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
)
QWEN2_VL = replace(TOOLS, name="qwen2_vl", default_system="You are a helpful assistant.")
QWEN2_OMNI = replace(QWEN2_VL, name="qwen2_omni")
LLAVA_NEXT_QWEN = replace(QWEN2_VL, name="llava_next_qwen")
QWEN2_AUDIO = replace(TURNS, name="qwen2_audio", default_system="You are a helpful assistant.", replace_eos=True)

QWEN3 = replace(TOOLS, name="qwen3", reasoning=True)
QWEN3_VL = replace(QWEN3, name="qwen3_vl")
QWEN3_OMNI = replace(QWEN3, name="qwen3_omni")
KEYE_VL = replace(QWEN3, name="keye_vl")
QWEN3_NOTHINK = replace(QWEN3, name="qwen3_nothink", reasoning=False)
QWEN3_VL_NOTHINK = replace(QWEN3_NOTHINK, name="qwen3_vl_nothink")
QWEN3_OMNI_NOTHINK = replace(QWEN3_NOTHINK, name="qwen3_omni_nothink")

QWEN3_5 = replace(QWEN3, name="qwen3_5", tool_format="qwen3_5")
QWEN3_6 = replace(QWEN3_5, name="qwen3_6")
QWEN3_5_NOTHINK = replace(QWEN3_5, name="qwen3_5_nothink", reasoning=False)

MIMO = replace(QWEN3, name="mimo", default_system="You are a helpful assistant.")
MIMO_VL = replace(MIMO, name="mimo_vl", default_system="You are MiMo, an AI assistant developed by Xiaomi.")
MIMO_V2 = replace(
    MIMO,
    name="mimo_v2",
    default_system="You are MiMo, a helpful AI assistant engineered by Xiaomi.",
    thought_words=("<think>", "</think>"),
)
