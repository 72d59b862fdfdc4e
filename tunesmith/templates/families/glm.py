"""GLM's formats.  The next turn's mark ends an answer; what follows `<|assistant|>` is the model's own to say."""

from dataclasses import replace

from tunesmith.templates.template import Template

GLM4 = Template(
    name="glm4",
    prefix="[gMASK]<sop>",
    system="<|system|>\n{{content}}",
    user="<|user|>\n{{content}}{{answer}}<|assistant|>",
    observation="<|observation|>\n{{content}}{{answer}}<|assistant|>",
    assistant="\n{{content}}{{eos}}",
    function="{{content}}{{eos}}",
    tool_format="glm4",
    stop_words=("<|user|>", "<|observation|>"),
)
CHATGLM3 = replace(GLM4, name="chatglm3", prefix="[gMASK]sop")
GLM_OCR = replace(GLM4, name="glm_ocr")

GLMZ1 = replace(GLM4, name="glmz1", reasoning=True)
GLM4V = replace(GLMZ1, name="glm4v", stop_words=("<|user|>", "<|observation|>", "</answer>"))

GLM4_MOE = replace(GLMZ1, name="glm4_moe", function="\n{{content}}{{eos}}", tool_format="glm4_moe")
GLM4_5V = replace(GLM4_MOE, name="glm4_5v", stop_words=("<|user|>", "<|observation|>", "</answer>"))
GLM4_7 = replace(GLM4_MOE, name="glm4_7", thought_words=("<think>", "</think>"), empty_thought="</think>")
AEVA = replace(
    GLM4_7,
    name="aeva",
    default_system="You are an AI assistant named Aeva created by Zongzhi Lou. "
    "Your answer should be friendly, unbiased, faithful, informative and detailed.",
)
