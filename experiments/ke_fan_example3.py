"""Ex 3"""

from ke_fan_examples import example, main

SETTINGS = example(3, widths=(6, 4, 3), lr=0.05, lr_refine=0.5, burn_in=400)

if __name__ == "__main__":
    main(SETTINGS)
