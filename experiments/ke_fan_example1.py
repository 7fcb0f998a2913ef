"""Ex 1"""

from ke_fan_examples import example, main

SETTINGS = example(1, widths=(5, 3), lr=0.01, lr_refine=0.1, burn_in=400)

if __name__ == "__main__":
    main(SETTINGS)
