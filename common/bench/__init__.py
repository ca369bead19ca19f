"""Compare the speed of this project with other tools: `python -m common bench [PART…]` on this CPU or GPU,
`python -m common bench gpu` for training steps of 7B and 13B models on a CUDA card. README.md says what is timed.
"""


def main(words):
    """`python -m common bench …`"""
    if words[:1] == ["gpu"]:
        from common.bench import gpu

        return gpu.main(words[1:])
    from common.bench import cpu

    return cpu.main(words)
