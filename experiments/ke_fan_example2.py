"""Ex 2"""

from ke_fan_examples import example, main

SETTINGS = example(
    2, widths=(6, 4, 3), lr=0.003, momentum=0.8, burn_in=600, lr_refine=0.03, starts=4, refine_explore=400
)


if __name__ == "__main__":
    main(SETTINGS)
