// A page that holds a whole file needs the width of the window.
if (document.querySelector(".annotated")) {
    document.body.classList.add("wide");
}

// Figures are opened at their full size.
for (const image of document.querySelectorAll("main p > img")) {
    const link = document.createElement("a");
    link.href = image.src;
    link.className = "figure";
    link.title = "Open at full size";
    image.replaceWith(link);
    link.append(image);
}
