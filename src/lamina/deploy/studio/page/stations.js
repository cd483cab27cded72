// The lessons' texts. Results are of nine runs on `shapes` (seeds 0 to 2 on one and two threads of an
// AMD EPYC, seeds 3 to 5 on one) and, for convolutions, of one on another processor; "about": 1.5
// points more at an edge that another run has touched.

import { html } from "./preact.js";

const FILTERS = [16, 32, 64].map((filters) => `Conv2d(${filters}, 3, stride=2, padding='same'), ReLU()`);
const PLAIN = `${FILTERS.join(", ")}, Flatten(), Linear(64), ReLU(), Output()`;
const NORMALIZED = PLAIN.replaceAll("ReLU()", "BatchNorm(), ReLU()");
const RECIPE = { epochs: "8", batch_size: "100" };

// Choices: a text, the least accuracy, and the first that is too large.
const offerRanges = (low, middle, high) => [
  [`under ${low} %`, 0, low / 100],
  [`${low} to ${middle} %`, low / 100, middle / 100],
  [`${middle} to ${high} %`, middle / 100, high / 100],
  [`over ${high} %`, high / 100, 1.01],
];
const RANGES = offerRanges(20, 40, 55);

// What to see: a title of the page, its place, and what is there.
const CURVES = ["Training", { tab: "training" }, "how loss and accuracy change with each epoch"];
const LAYERS = ["Net", { step: "net" }, "open a card for its parameters, multiply-adds and time"];
const RUNS = ["Runs", { step: "runs" }, "tick the boxes of both runs; Compare shows what differs"];
const INSIDE = ["Inside the net", { tab: "training", id: "live" }, "filters, and what they find in an image"];

// `setup`: the net and the settings on `shapes`; without a net, on images of one's own. `second`: an
// experiment after the answer. `chapter`: the file and the title of the documentation's chapter.
export const STATIONS = [
  {
    title: "A linear net",
    chapter: ["01_pixels", "Pixels and a linear net"],
    text: html`<p>An image of 32×32 pixels in three colors is 3,072 numbers. Flatten makes a list of them. Output has
        one unit for each of the ten classes. A unit multiplies each number by a weight and adds up the products. The
        class with the largest sum is the prediction.</p>
      <p>The weights are random at first. The loss measures how improbable the net finds the true classes. Each training
        step takes a batch of images and changes the weights a little, so that the loss falls. One pass over all
        training images is an epoch.</p>
      <p>The net learns from 7,200 images. After each epoch, it is checked on 800 others, called val. The 2,000 test
        images are used once, at the end.</p>
      <p>With one weight per number, a unit compares each image with a single template. But the shapes have random
        positions, sizes, angles and colors.</p>`,
    change: "Under Images, choose shapes; under Net, keep only Flatten and Output.",
    setup: { net: "Flatten(), Output()", fields: { ...RECIPE, lr: "0.001" } },
    question: "Guessing gets about 10 % of the test images right. What will this net get?",
    choices: RANGES,
    answer: html`Such a net gets about 11 to 15 %. A template fits only shapes in one place. Train accuracy rises to
      about 22 to 25 %, but val hardly does: the net memorizes training images and does not generalize.`,
    see: [CURVES, LAYERS],
  },
  {
    title: "A hidden layer",
    chapter: ["02_hidden_layer", "A hidden layer and its activation"],
    text: html`<p>A hidden layer computes new numbers from the pixels, and Output uses these. Linear(128) has 128 units.
        Each has a weight for every one of the 3,072 numbers. Such a net is a multilayer perceptron (MLP).</p>
      <p>ReLU comes after it and replaces negative numbers by 0. Without it, one layer could replace both: a weighted
        sum of weighted sums is itself a weighted sum.</p>`,
    change: "Between Flatten and Output, add Linear with 128 units, and ReLU.",
    setup: { net: "Flatten(), Linear(128), ReLU(), Output()", fields: { ...RECIPE, lr: "0.001" } },
    question: "This net has 13 times as many parameters. What test accuracy will it get?",
    choices: RANGES,
    answer: "Our runs got 24.2 to 26.7 %.",
    second: {
      task: "Now remove the card ReLU and train again.",
      net: "Flatten(), Linear(128), Output()",
      answer: "Without ReLU, the net gets about 12 to 15 %, like the linear net.",
    },
    see: [CURVES, LAYERS, RUNS],
  },
  {
    title: "Convolutions",
    chapter: ["04_convolutions", "Convolutions"],
    text: html`<p>To an MLP, neighboring pixels are as unrelated as distant ones. A convolution uses filters of 3×3
        pixels: each moves over the image, and its output is large where the image resembles the filter. So a net that
        learns a corner in one place finds it everywhere.</p>
      <p>With step 2, the filters move by 2 pixels, so the output has half the height and width. In a stack, each layer
        sees more of the image: the receptive field of the three grows from 3×3 to 15×15 pixels.</p>`,
    change: html`Before Flatten, add three Conv2d with 16, 32 and 64 filters, size 3, step 2 and padding same, each
      followed by ReLU. Let Linear have 64 units.`,
    setup: { net: PLAIN, fields: { ...RECIPE, lr: "0.003" } },
    question: "This net has less than a quarter of the MLP’s parameters. What test accuracy will it get?",
    choices: RANGES,
    answer: html`Our runs got 55.4 to 70.4 %. More parameters are not always better: what matters is that the layers
      suit images. The filters are few, but each computes at many places, so this net needs almost twice as many
      multiply-adds as the MLP.`,
    see: [LAYERS, INSIDE, CURVES],
  },
  {
    title: "Batch norm and dropout",
    chapter: ["05_batch_norm_and_dropout", "Batch norm and dropout"],
    text: html`<p>BatchNorm subtracts each channel’s mean over the batch and divides by its standard deviation, then
        scales and shifts by learned numbers. This allows larger learning rates. For predictions, it uses running
        averages from training.</p>
      <p>Dropout sets a random half of its inputs to 0 in each step and doubles the rest, so that no unit can rely on a
        single other unit. Predictions do not use it.</p>`,
    change: html`Add BatchNorm before each ReLU, and Dropout before Output. With this learning rate, the net of lesson
      3 got only 9.6 to 46.5 %.`,
    setup: { net: NORMALIZED.replace("Output()", "Dropout(0.5), Output()"), fields: { ...RECIPE, lr: "0.01" } },
    question: "What test accuracy will the net get with both?",
    choices: offerRanges(50, 65, 80),
    answer: "Our runs got 66.8 to 75.8 %. Train accuracy was below val, because it is measured with dropout on.",
    second: {
      task: "Now remove the card Dropout and train again.",
      net: NORMALIZED,
      answer: html`Our runs got 75.9 to 81.6 % on test, and 89 to 92 % on train. Batch norm helped. Dropout closed the
        gap between train and val, but within 8 epochs it did not improve the test accuracy.`,
    },
    see: [CURVES, RUNS, INSIDE],
  },
  {
    title: "What it learned",
    chapter: ["06_what_it_learned", "What a net has learned"],
    text: html`<p>A single percentage hides what a net gets wrong. A confusion matrix counts, for each class, what its
        images were taken for.</p>
      <p>Nobody told the net what an edge is. Its filters are random at first, and change because that lowers the loss.
        Watch them during training.</p>`,
    change: "Remove Dropout, and move each training image at random by up to 2 pixels (under More settings).",
    setup: { net: NORMALIZED, fields: { ...RECIPE, lr: "0.003", translate_px: "2" } },
    question: "Which two classes will the net confuse most often?",
    choices: [["arrow and drop"], ["circle and pentagon"], ["cross and star"], ["heart and triangle"]],
    answer: html`In all of our runs, it was circle and pentagon: at this size, few pixels distinguish them. Random
      shifts show the net each shape in more places. Test accuracy was 78.1 to 86.7 %.`,
    see: [INSIDE, ["Results", { tab: "look" }, "the confusions, and the images behind them"]],
  },
  {
    title: "Your own images",
    chapter: ["07_your_images", "Your own images"],
    text: html`<p>Now train on classes of your own, such as two cups. Name each class and add images: from files, or
        with the webcam. Take at least 20 per class, with different distances, angles and backgrounds.</p>
      <p>A net learns whatever separates the classes. If one cup always stands on the left, it may learn the place. And
        a few test images say little: with 10 of 10 correct, the 95 % interval still begins at 72 %.</p>`,
    change: html`Press “Set this up”, so that lamina chooses the net and the settings within 30 s. Make two or three
      classes, press “Use these images”, then Train.`,
    setup: { preset: "choose", time: "30s", fields: {} },
    question: "How many of the test images, which the net does not learn from, will it get right?",
    choices: offerRanges(60, 80, 95),
    answer: html`Images taken within seconds are alike, so this test is easier than later use. Try new images: another
      room, other light, someone else’s hand.`,
    see: [
      ["Images", { step: "data" }, "what lamina finds in your images"],
      ["Try it", { tab: "try" }, "predictions for new images"],
      ["Export", { tab: "take" }, "the model, the report, and a command that trains again"],
    ],
  },
];
