"""Ex 2"""

from ke_fan_examples import example, main

SETTINGS = example(2, widths=(6, 4, 3), lr=0.01, lr_refine=0.02, burn_in=500, preconditioned=True)

if __name__ == "__main__":
    main(SETTINGS)
